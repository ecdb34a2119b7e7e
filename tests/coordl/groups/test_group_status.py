"""`coordl status` and `coordl clear` on groups."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from group_jobs import PICTURES, Job, alone, batches_of, loader
from rich.console import Console

from coordl import _native
from coordl.cli_groups import print_groups

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coordl.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_status_shows_members_where_they_are_and_what_they_save(folder: Path) -> None:
    one, other = loader(folder, 4), loader(folder, 4)
    batches_of(one)
    running = iter(other)
    next(running)
    job = Job(lambda: batches_of(loader(folder, 4)))
    job.result()
    got = json.loads(run("status", "--format", "json").stdout)["groups"]
    assert [(group["name"], group["users"]) for group in got] == [("sweep", 2)]
    assert got[0]["agreed"]["seed"] == 7
    members = {member["pid"]: member for member in got[0]["members"]}
    assert set(members) == {os.getpid(), job.pid}
    assert members[os.getpid()]["prepared"] == PICTURES and members[os.getpid()]["passes"] == 1
    assert members[job.pid]["staged"] == PICTURES and members[job.pid]["passes"] == 0
    assert got[0]["saved_share"] >= 0.5
    text = run("status").stdout
    assert "sweep" in text and f"pid {job.pid}" in text and "saved" in text
    assert job.end() == 0


@pytest.mark.parametrize(("sample", "apart"), [(300, False), (301, True)])
def test_jobs_that_share_nothing_are_told(sample: int, apart: bool) -> None:
    def member(pid: int, epoch: int, sample: int) -> dict[str, Any]:
        counts = {"prepared": 1, "alone": 0, "staged": 0}
        return {"pid": pid, "passes": 1, "epoch": epoch, "sample": sample, **counts}

    group = {
        "name": "sweep",
        "readable": True,
        "file_bytes": 4096,
        "slots": 20,
        "published": 20,
        "run_samples": 10,
        "epoch_samples": 400,
        "saved_share": 0.5,
        "members": [member(1, 1, 100), member(2, 1, sample)],
    }
    said = io.StringIO()
    print_groups(Console(file=said, width=80), [group])
    assert ("share nothing" in said.getvalue()) is apart


def test_clear_refuses_a_live_group_unless_forced_and_its_jobs_go_on(
    folder: Path, shm_dir: Path
) -> None:
    one = loader(folder, 4)
    assert batches_of(one) == alone(folder, 4, 0)
    refused = run("clear", "sweep")
    assert refused.returncode == 2 and "group sweep is in use by 1 process" in refused.stderr
    forced = run("clear", "sweep", "--force")
    assert (forced.returncode, forced.stdout) == (0, "Cleared sweep.\n")
    assert os.listdir(shm_dir) == []
    assert batches_of(one) == alone(folder, 4, 1)


def test_status_removes_what_a_killed_job_left(folder: Path, shm_dir: Path) -> None:
    def work() -> None:
        _native._signal_at({"publish:staged": signal.SIGKILL})
        batches_of(loader(folder, 4))

    assert Job(work).end() == -signal.SIGKILL
    assert len(os.listdir(shm_dir)) == 2
    assert "Reaped sweep" in run("status").stdout
    assert os.listdir(shm_dir) == []
