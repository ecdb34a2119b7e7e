"""Two servers under torchrun, over gloo: storage is read once, by both together."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from emulated import PICTURES, wait_until


@pytest.mark.slow
def test_two_ranks_read_the_data_set_once_together(here, folder, tmp_path) -> None:
    command = job_of(here, folder, tmp_path, 3)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    size = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    # every sample of every epoch is that of a loader without peers
    assert all(rank["same"] == [True] * 3 for rank in told)
    # the first epoch reads each file once, by one rank or the other; later ones read none
    for epoch, (misses, read) in enumerate([(PICTURES, size), (0, 0), (0, 0)]):
        figures = [rank["epochs"][epoch] for rank in told]
        assert sum(each["samples"] for each in figures) == PICTURES
        assert sum(each["misses"] for each in figures) == misses
        assert sum(each["storage_bytes"] for each in figures) == read
    assert sum(rank["epochs"][1]["remote_hits"] for rank in told) > 0
    assert all("peers now: 2 server(s)" in rank["plan"] for rank in told)
    nothing_left(here)


@pytest.mark.slow
def test_servers_killed_and_stopped_change_no_sample(here, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COORDL_PEERS_DEADLINE_S", "0.3")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    job = subprocess.Popen(
        job_of(here, folder, tmp_path, 100), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert job.stderr is not None
    chance, harmed = random.Random(7), {signal.SIGKILL: 0, signal.SIGSTOP: 0}
    while job.poll() is None:
        time.sleep(chance.uniform(0.1, 1))
        found = [json.loads(path.read_text() or "{}") for path in here.rglob("coordl-peers*")]
        if pids := [told["pid"] for told in found if told]:
            harm, pid = min(harmed, key=lambda each: harmed[each]), chance.choice(pids)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, harm)
                harmed[harm] += 1
                time.sleep(chance.uniform(0, 1.5))
                os.kill(pid, signal.SIGCONT)
    said = job.stderr.read().decode()
    job.stderr.close()
    assert job.returncode == 0, said[-3000:]
    assert all(harmed.values())
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert all(rank["same"] == [True] * 100 for rank in told)
    remote = sum(epoch["remote_hits"] for rank in told for epoch in rank["epochs"])
    assert remote > 0  # they were asked again
    for path in here.rglob("coordl-peers*"):  # of the last one killed
        path.unlink(missing_ok=True)
    nothing_left(here)


def job_of(here: Path, folder: Path, results: Path, epochs: int) -> list[str]:
    """The command, with a directory of arenas for each of two nodes."""
    for rank in range(2):
        (here / f"node{rank}").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    job = Path(__file__).with_name("ranks_job.py")
    return [*command, str(job), str(folder), str(results), str(epochs)]


def nothing_left(here: Path) -> None:
    """The servers end with the ranks, and leave nothing."""
    wait_until(lambda: not [path for path in here.rglob("coordl-peers*")])
    for rank in range(2):
        wait_until(lambda rank=rank: not list((here / f"node{rank}").iterdir()))
        (here / f"node{rank}").rmdir()
