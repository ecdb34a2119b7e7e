"""Ranks under torchrun with gloo: torch's indices in each, also after a crash; other ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.utils.data.distributed import DistributedSampler

import coordl

COUNT = 11
JOB = Path(__file__).with_name("torchrun_job.py")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each a class of its own: a target is an index."""
    root = tmp_path_factory.mktemp("torchrun") / "pictures"
    for number in range(COUNT + 1):
        (root / f"{number:02}").mkdir(parents=True)
        Image.new("RGB", (20, 16), (number, 0, 0)).save(root / f"{number:02}" / "one.jpg")
    return root


def launched(ranks: int, *arguments: Any) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return subprocess.run([*launch, JOB, *arguments], capture_output=True, text=True, timeout=240)


def torchrun(ranks: int, pictures: Path, folder: Path, what: str) -> list[dict[str, Any]]:
    """What each rank wrote."""
    done = launched(ranks, pictures, folder, what)
    assert done.returncode == 0, done.stderr
    names = [f"{what}{ranks}-{rank}.json" for rank in range(ranks)]
    return [json.loads((folder / name).read_text()) for name in names]


def torchs(ranks: int, rank: int, epoch: int) -> list[int]:
    sampler = DistributedSampler(range(COUNT), ranks, rank, seed=5)  # type: ignore[arg-type]
    sampler.set_epoch(epoch)
    return list(sampler)


def test_each_rank_has_torchs_indices_and_evaluation_each_sample_once(
    pictures: Path, tmp_path: Path
) -> None:
    told = torchrun(2, pictures, tmp_path, "epochs")
    for rank, one in enumerate(told):
        assert one["ours"] == one["torch"] == [torchs(2, rank, epoch) for epoch in (0, 1)]
    assert sum(len(one["ours"][0]) for one in told) == 12  # padded, as torch's
    assert sorted(told[0]["evaluated"] + told[1]["evaluated"]) == list(range(COUNT))


@pytest.mark.slow
def test_after_a_crash_and_with_other_ranks_each_sample_comes_once(
    pictures: Path, tmp_path: Path
) -> None:
    crashed = launched(2, pictures, tmp_path, "crash")
    assert crashed.returncode != 0 and "SIGKILL" in crashed.stderr
    told = torchrun(2, pictures, tmp_path, "go-on")
    taken = [json.loads((tmp_path / f"taken{rank}.json").read_text()) for rank in range(2)]
    for rank, one in enumerate(told):
        assert one["epoch"] == 3 and len(taken[rank]) == 4
        assert taken[rank] + one["rest"] == torchs(2, rank, 3)
    rest = [index for one in torchrun(3, pictures, tmp_path, "go-on") for index in one["rest"]]
    assert len(rest) == 3  # of 11, 8 were taken; three ranks share three without padding
    assert Counter(taken[0] + taken[1] + rest) == Counter(range(COUNT))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("size", "ranks"), [(11, 2), (12, 3), (2, 4), (0, 2)])
def test_evaluation_gives_each_sample_once_in_torchs_order(
    size: int, ranks: int, shuffle: bool
) -> None:
    order = []
    for rank in range(ranks):
        sampler = coordl.EvaluationSampler(range(size), ranks, rank, shuffle, seed=2)
        sampler.set_epoch(4)
        mine = list(sampler)
        assert len(sampler) == len(mine)
        order += [(place * ranks + rank, index) for place, index in enumerate(mine)]
    alone = DistributedSampler(range(size), 1, 0, shuffle, 2)  # type: ignore[arg-type]
    alone.set_epoch(4)
    assert [index for _, index in sorted(order)] == list(alone)
