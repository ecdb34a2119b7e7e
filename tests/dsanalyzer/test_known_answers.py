"""Scripts whose stalls are known: the profile finds them, each in its class."""

from pathlib import Path

import pytest

from benchmarks.loaders import known
from dsanalyzer.report import load

pytestmark = [pytest.mark.slow, pytest.mark.alone]
SCRIPT = Path(known.__file__)
CARE = ("--rounds", 3, "--epochs", 3, "--samples", 320, "--block", 1, "--cached", "0%")
OFF = 0.05  # of the epoch


@pytest.mark.parametrize(
    ("name", "prep_ms", "cold_ms", "step_ms"),
    [
        ("prep", 10, 0, 20),
        ("fetch", 0, 10, 20),
        ("both", 6, 8, 20),
        ("neither", 2, 2, 100),
    ],
)
def test_a_known_stall_is_found_in_its_class(cli, on_disk, name, prep_ms, cold_ms, step_ms):
    said = ("--prep-ms", prep_ms, "--cold-ms", cold_ms, "--step-ms", step_ms)
    done = cli("profile", *CARE, "-o", "r.json", *cli.job(str(SCRIPT), on_disk, *said))

    assert done.returncode == 0, done.stderr
    result = load.load_result(cli.folder / "r.json")
    true = known.truth(prep_ms, cold_ms, step_ms)
    for epoch in (*result["epochs"], result["steady"]):  # nothing is cached in any of them
        scale = result["dataset"]["samples"] * true.total_s
        for part, expected in (
            ("compute_s", true.compute_s),
            ("prep_stall_s", true.prep_stall_s),
            ("fetch_stall_s", true.fetch_stall_s),
        ):
            found = epoch[part]["value"] / result["dataset"]["samples"]
            assert abs(found - expected) <= OFF * true.total_s, (name, part, scale)
    steady = result["steady"]
    for part, expected in (("prep", true.prep_stall_s), ("fetch", true.fetch_stall_s)):
        verdict = steady[f"{part}_stall_s"]["verdict"]
        assert verdict == ("stall" if expected else "none"), (name, part, steady)
