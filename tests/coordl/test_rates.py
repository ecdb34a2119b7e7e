"""`coordl rates`: samples per second with an interval, as JSON another program reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordl import _native
from coordl.cli import app


@pytest.fixture
def listing(tmp_path: Path, photos: list[Path]) -> Path:
    text = tmp_path / "no picture.jpg"
    text.write_text("no picture")
    listing = tmp_path / "list.txt"
    listing.write_text("\n".join(map(str, [*photos, text, tmp_path / "missing.jpg", ""])))
    return listing


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["rates", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_file_has_rate_interval_and_what_was_measured(
    listing: Path, tmp_path: Path, dtype: str
) -> None:
    out = tmp_path / "rates.json"
    code, said = run(
        "--files", listing, "--crop", "32x48", "--threads", 2, "--seconds", 0.05,
        "--dtype", dtype, "-o", out,
    )  # fmt: skip
    assert code == 0 and str(out) in said
    found = json.loads(out.read_text())
    rate, expansion = found.pop("prep_rate"), found.pop("expansion")
    assert found == {
        "schema": "coordl.rates/1", "threads": 2, "files": 4, "crop": [32, 48], "skipped": 2,
        "form": "original",
    }  # fmt: skip
    assert 1.0 <= expansion < 1.5  # the files are tiny: what the cache adds to each shows
    assert 0 < rate["low"] <= rate["value"] <= rate["high"] and rate["unit"] == "samples/s"
    assert not [a for a in _native.list_arenas() if a["name"].startswith("rates-")]


def test_a_result_is_never_overwritten_silently(listing: Path, tmp_path: Path) -> None:
    out = tmp_path / "rates.json"
    out.write_text("mine")
    code, said = run("--files", listing, "-o", out)
    assert code == 2 and "--force" in said and out.read_text() == "mine"
    assert run("--files", listing, "--seconds", 0.02, "-o", out, "--force")[0] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "names no files"), ("/nowhere/a.jpg\n", "None of the 1 files can be read")],
)
def test_a_useless_list_is_refused(tmp_path: Path, content: str, said: str) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(content)
    code, output = run("--files", listing)
    assert code == 2 and said in output


def test_a_list_without_jpegs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    listing = tmp_path / "list.txt"
    listing.write_text(str(tmp_path / "a.jpg"))
    code, output = run("--files", listing)
    assert code == 2 and "None of the 1 readable files is a JPEG" in output


def test_bad_options_are_refused(listing: Path, tmp_path: Path) -> None:
    code, output = run("--files", listing, "--crop", "big")
    assert code == 2 and "HEIGHTxWIDTH" in output
    code, output = run("--files", tmp_path / "none.txt")
    assert code == 2 and "cannot read" in output
