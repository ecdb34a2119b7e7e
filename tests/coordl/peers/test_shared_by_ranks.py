"""Two servers under torchrun, over gloo: storage is read once, by both together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from emulated import PICTURES, wait_until


@pytest.mark.slow
def test_two_ranks_read_the_data_set_once_together(here, folder, tmp_path) -> None:
    for rank in range(2):
        (here / f"node{rank}").mkdir()
    job = Path(__file__).with_name("ranks_job.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", str(job)]
    command += [str(folder), str(tmp_path), "3"]
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
    # the servers end with the ranks, and leave nothing
    wait_until(lambda: not [path for path in here.rglob("coordl-peers*")])
    for rank in range(2):
        wait_until(lambda rank=rank: not list((here / f"node{rank}").iterdir()))
        (here / f"node{rank}").rmdir()
