"""Jobs of several ranks are measured as one."""

import json
import re
import sys
from pathlib import Path

import pytest

from dsanalyzer import ranks
from dsanalyzer.hooks.conductor import LEARN_STEPS
from dsanalyzer.measure.plan import INGESTION_STEPS
from dsanalyzer.observer import BLOCKS
from dsanalyzer.predict.calibrate import setup_of
from dsanalyzer.report import load

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
BRIEF = ("--rounds", 2, "--epochs", 2, "--block", 0.3, "--samples", 192, "-o", "r.json", "--")


def job(cli, folder, *more):
    return [*TORCHRUN, *cli.job("ranks.py", folder, *more)[2:]]


def test_ranks_are_measured_together(cli, on_disk):
    done = cli("profile", *BRIEF, *job(cli, on_disk, "--slow", 1, 8))

    assert done.returncode == 0, done.stderr
    assert cli.leftovers() == []
    result = load.load_result(cli.folder / "r.json")
    assert (result["loader"]["ranks"], result["loader"]["batch_size"]) == (2, 8)
    assert "in each of 2 ranks" in " ".join(done.stdout.split())
    assert result["dataset"]["measured_samples"] == 192
    loading = [one for one in result["passes"] if one["phase"] not in BLOCKS]
    assert loading and all(one["samples"] == 192 for one in loading)
    assert all(len(one["steps_s"]) == 192 // 16 for one in loading)
    blocks = [one for one in result["passes"] if one["phase"] in BLOCKS]
    assert {one["phase"] for one in blocks} == {"ingestion", "delivery", "interference"}
    assert len({len(one["steps_s"]) for one in blocks}) == 1
    assert all(one["samples"] == 16 * len(one["steps_s"]) for one in blocks)
    checks = {check["name"]: check["ok"] for check in result["checks"]}
    assert checks["prep passes read no storage"] and checks["the first fetch pass is cold"]
    # One rank's prep takes 8 ms a sample, and all wait for it; it itself waits for its loader.
    prep = [one for one in loading if one["phase"] == "prep"]
    assert all(one["rank_waits_s"][1] > 2 * one["rank_waits_s"][0] for one in prep)
    slow_s = 0.008 * result["dataset"]["samples"] / 2
    assert result["steady"]["prep_stall_s"]["value"] > 0.5 * slow_s
    assert any("2 ranks, measured together" in note for note in result["notes"])
    setup = setup_of(result)
    assert (setup.ranks, setup.workers, setup.batch_size) == (2, 2, 8)


@pytest.mark.slow
def test_a_rank_that_ends_early_is_named(cli, on_disk):
    steps = LEARN_STEPS + INGESTION_STEPS[0]  # then the others wait for what it has to say
    done = cli("profile", *BRIEF, *job(cli, on_disk, "--leaves", 1, steps))

    assert done.returncode == 2, done.stdout
    assert cli.leftovers() == []
    said = " ".join(done.stderr.split())
    assert "rank 1 ended while the profile went on with others (0)" in said
    assert "give the script more steps or epochs" in said


def test_an_emulated_accelerator_is_for_one_rank(cli, on_disk):
    done = cli("profile", "--gpu-rate", 500, *BRIEF, *job(cli, on_disk))

    assert done.returncode == 2
    assert "emulates one accelerator and the job has 2 ranks" in " ".join(done.stderr.split())


def test_what_ranks_say_is_one_message(tmp_path: Path):
    gathered = ranks.Gathered()
    says = [
        {"op": "plan", "rank": rank, "ranks": 2, "loader_rate": 10.0 + rank, "window": 16,
         "batch": 8, "available": 100 - rank, "step_rate": 50.0}
        for rank in (0, 1)
    ]  # fmt: skip
    assert gathered.add("b", says[1]) == []
    assert gathered.waiting() == [1]
    both = gathered.add("a", says[0])
    assert [link for link, _ in both] == ["a", "b"] and gathered.waiting() == []
    plan = ranks.together([said for _, said in both], tmp_path)
    assert (plan["loader_rate"], plan["window"], plan["batch"]) == (21.0, 32, 16)
    assert (plan["available"], plan["step_rate"]) == (199, 100.0)

    for rank, count in ((0, 3), (1, 2)):
        files = [[f"{rank}-{n}"] for n in range(count)]
        part = {"indices": list(range(count)), "files": files, "why": None}
        part["sizes"] = {name: 5 for (name,) in files}
        (tmp_path / f"subset-{rank}.json").write_text(json.dumps(part))
    ranks.together([{"op": "subset"}, {"op": "subset"}], tmp_path)
    joined = json.loads((tmp_path / "subset.json").read_text())
    assert joined["indices"] == [0, 1, 0, 1]  # as many of each
    assert list(joined["sizes"]) == ["0-0", "0-1", "1-0", "1-1"]

    for rank, wall_s in ((0, 2.0), (1, 3.0)):
        record = {"phase": "prep", "round": 0, "samples": 4, "wall_s": wall_s, "cpu_s": 1.0,
                  "start_s": rank, "steps_s": [wall_s], "waits_s": [0.5, 0.25]}  # fmt: skip
        (tmp_path / f"pass-prep-0-{rank}.json").write_text(json.dumps(record))
    ends = [{"op": "end", "record": f"pass-prep-0-{rank}.json"} for rank in (0, 1)]
    named = ranks.together(ends, tmp_path)["record"]
    whole = json.loads((tmp_path / named).read_text())
    assert (whole["samples"], whole["wall_s"], whole["cpu_s"], whole["start_s"]) == (8, 3, 2, 1)
    assert whole["rank_waits_s"] == [0.75, 0.75]


def test_ranks_of_several_machines_are_refused(cli, on_disk):
    script = cli.folder / "many.py"
    script.write_text(
        "import os\nos.environ |= {'WORLD_SIZE': '16', 'LOCAL_WORLD_SIZE': '8', 'RANK': '3'}\n"
        "import torch\nnext(iter(torch.utils.data.DataLoader([1, 2])))\n"
    )
    done = cli("profile", *BRIEF, sys.executable, script)

    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "16 ranks, 8 of them on this machine" in said
    assert re.search(r"nproc-per-node=8", said)
