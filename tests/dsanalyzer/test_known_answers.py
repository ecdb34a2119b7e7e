"""Scripts whose stalls are known: the profile finds them, each in its class."""

import os
from pathlib import Path

import pytest

from benchmarks.loaders import known
from dsanalyzer.report import load

pytestmark = [pytest.mark.slow, pytest.mark.alone]
SCRIPT = Path(known.__file__)
SAMPLES = 960
CARE = ("--rounds", 3, "--epochs", 3, "--samples", SAMPLES, "--block", 2, "--cached", "0%")
OFF = 0.05  # of the epoch


@pytest.fixture(scope="module")
def files(on_disk, tmp_path_factory):
    """So many files; what is in them is not looked at."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(SAMPLES):
        (folder / f"{number}.jpg").write_bytes(os.urandom(20_000))
    os.sync()
    return folder


@pytest.mark.parametrize(
    ("name", "prep_ms", "cold_ms", "step_ms", "optimizer_ms"),
    [
        ("prep", 10, 0, 20, 0),
        ("fetch", 0, 10, 20, 0),
        ("both", 6, 8, 20, 0),
        ("neither", 0.2, 0.2, 100, 0),
        ("slow optimizer", 1, 0, 60, 40),
    ],
)
def test_a_known_stall_is_found_in_its_class(
    cli, files, name, prep_ms, cold_ms, step_ms, optimizer_ms
):
    said = ("--prep-ms", prep_ms, "--cold-ms", cold_ms, "--step-ms", step_ms)
    said += ("--optimizer-ms", optimizer_ms)
    done = cli("profile", *CARE, "-o", "r.json", *cli.job(str(SCRIPT), files, *said))

    assert done.returncode == 0, done.stderr
    result = load.load_result(cli.folder / "r.json")
    true = known.truth(prep_ms, cold_ms, step_ms)
    for epoch in (*result["epochs"], result["steady"]):  # nothing is cached in any of them
        for part, expected in (
            ("compute_s", true.compute_s),
            ("prep_stall_s", true.prep_stall_s),
            ("fetch_stall_s", true.fetch_stall_s),
        ):
            found = epoch[part]["value"] / result["dataset"]["samples"]
            assert abs(found - expected) <= OFF * true.total_s, (name, part)
    steady = result["steady"]
    failed = [check for check in result["checks"] if not check["ok"]]
    for part, expected in (("prep", true.prep_stall_s), ("fetch", true.fetch_stall_s)):
        verdict = steady[f"{part}_stall_s"]["verdict"]
        assert verdict == ("stall" if expected else "none"), (name, part, failed)
