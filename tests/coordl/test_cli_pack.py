"""What `coordl pack` and `coordl unpack` print, refuse and leave when they are stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coordl.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_pack_says_what_it_kept_what_it_wrote_and_where(mixed_folder: Path, tmp_path: Path) -> None:
    result = run("pack", mixed_folder, tmp_path / "out", "--shard-size", "256KiB", "--jobs", 2)
    assert result.exit_code == 0, result.stderr
    kept, wrote = result.stdout.splitlines()
    assert kept == "Stored as they are: 4 of 18, e.g. a/rgb.jpg, b/cmyk.jpg, b/other.png, ..."
    assert wrote.startswith(f"Wrote {tmp_path / 'out'}: 18 pictures of 3 classes, ")
    assert " shards (" in wrote and wrote.endswith(" in files)")


def test_pack_of_a_finished_data_set_says_so(mixed_folder: Path, tmp_path: Path) -> None:
    run("pack", mixed_folder, tmp_path / "out")
    result = run("pack", mixed_folder, tmp_path / "out")
    assert result.exit_code == 0
    assert "is packed already; its source is the same: 18 files. Unchanged." in result.stdout
    os.utime(mixed_folder / "b" / "other.png", (1e9, 1e9))
    refused = run("pack", mixed_folder, tmp_path / "out")
    assert refused.exit_code == 2
    assert "1 changed (e.g. b/other.png)" in refused.stderr and "--force" in refused.stderr
    assert run("pack", mixed_folder, tmp_path / "out", "--force").exit_code == 0


def test_one_is_not_told_in_the_plural(tmp_path: Path, photos: list[Path]) -> None:
    (tmp_path / "src" / "a").mkdir(parents=True)
    (tmp_path / "src" / "a" / "1.jpg").write_bytes(photos[0].read_bytes())
    made = run("pack", tmp_path / "src", tmp_path / "out").stdout
    assert ": 1 picture of 1 class, " in made and " in 1 shard (" in made
    assert "the same: 1 file. " in run("pack", tmp_path / "src", tmp_path / "out").stdout
    assert ": 1 file, " in run("unpack", tmp_path / "out", tmp_path / "again").stdout


def test_unpack_names_its_arguments_as_pack_does() -> None:
    usage = run("unpack", "--help").stdout.split("Usage:")[1].splitlines()[0]
    assert usage.index("SRC") < usage.index("DST")


def test_unpack_says_where(mixed_folder: Path, tmp_path: Path) -> None:
    run("pack", mixed_folder, tmp_path / "out")
    result = run("unpack", tmp_path / "out", tmp_path / "again")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"Wrote {tmp_path / 'again'}: 18 files, ")
    refused = run("unpack", tmp_path / "out", tmp_path / "again")
    assert refused.exit_code == 2 and "is not empty" in refused.stderr


def test_names_that_are_no_text_are_shown(tmp_path: Path) -> None:
    home = os.fsencode(tmp_path) + b"/src/a"
    os.makedirs(home)
    with open(home + b"/\xff.png", "wb") as file:
        file.write(b"no picture")
    result = run("pack", tmp_path / "src", tmp_path / "out")
    assert result.exit_code == 0
    assert "Stored as they are: 1 of 1, e.g. a/\N{REPLACEMENT CHARACTER}.png" in result.stdout
    assert "1 of them are no pictures, and an error to whoever loads them: a/" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pack", "none", "out"], "There is no folder 'none'"),
        (["pack", "{src}", "out", "--shard-size", "1KiB"], "--shard-size is at least 64 KiB"),
        (["pack", "{src}", "out", "--shard-size", "large"], "--shard-size 'large' is no size"),
        (
            ["pack", "{src}", "out", "--shard-size", "auto"],
            "'auto' is no size; write bytes",
        ),
        (["pack", "{src}", "out", "--shard-size", "65%"], "'65%' is no size"),
        (["pack", "dangling", "out"], "moved or removed since? Nothing was written."),
        (["pack", "{src}", "{src}/a/420.jpg"], "lies inside"),
        (["pack", "{src}", "file"], "file: File exists"),
        (["pack", "{src}", "out", "--form", "zip"], "zip"),
        (["unpack", "none", "out"], "There is no folder 'none'"),
        (["unpack", "{src}", "out"], "holds no packed data set"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_status_2(
    mixed_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling" / "a").mkdir(parents=True)
    (tmp_path / "dangling" / "a" / "1.jpg").symlink_to("nowhere")
    result = run(*(argument.format(src=mixed_folder) for argument in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


STOPPED = """
import os, signal, sys
from coordl.cli import main
from coordl.fetch import shard_writer

step, out = sys.argv[1:3]
sys.argv[:3] = ["coordl"]

def stop(reached):
    if reached == step and os.path.exists(out + "/shard-00001.cdp"):
        shard_writer.step_hook = None
        os.kill(os.getpid(), signal.SIGINT)

shard_writer.step_hook = stop
main()
"""


@pytest.mark.parametrize("step", ["shard:item", "part:renamed", "shard:written"])
def test_ctrl_c_leaves_a_state_to_go_on_from_and_says_so(
    mixed_folder: Path, tmp_path: Path, step: str
) -> None:
    out = tmp_path / "out"
    arguments = ["pack", str(mixed_folder), str(out), "--shard-size", "256KiB"]
    command = [sys.executable, "-c", STOPPED, step, str(out), *arguments]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 130, stopped.stderr
    assert "coordl: stopped. What is finished stays in" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not list(out.glob("*.tmp"))
    result = run(*arguments)
    assert result.exit_code == 0
    assert "Went on after the " in result.stdout
