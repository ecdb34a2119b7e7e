"""Prep is measured with other numbers of workers too, and predictions know of it."""

import pytest

from dsanalyzer.report import load

BRIEF = ("--rounds", 1, "--epochs", 2, "--block", 0.3, "--samples", 320, "--gpu-rate", 2000)


@pytest.mark.parametrize("more", [(), pytest.param(("--persistent",), marks=pytest.mark.slow)])
def test_each_number_of_workers_is_a_pass_of_its_own(cli, on_disk, more):
    job = cli.job("train.py", on_disk, "--workers", 2, *more)
    done = cli("profile", *BRIEF, "--sweep", "1,2,3", "-o", "r.json", "--html", "r.html", *job)

    assert done.returncode == 0, done.stderr
    assert cli.leftovers() == []
    result = load.load_result(cli.folder / "r.json")
    assert [one["workers"] for one in result["prep_by_workers"]] == [1, 2, 3]
    swept = [one for one in result["passes"] if one["phase"] == "sweep"]
    assert [one["round"] for one in swept] == [1, 3]
    assert all(one["samples"] == 320 and one["resident_before"] > 0.99 for one in swept)
    assert result["loader"]["num_workers"] == 2
    assert "by workers" in done.stdout
    assert "What more workers would do" in (cli.folder / "r.html").read_text()
