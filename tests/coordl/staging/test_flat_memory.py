"""The memory of a loader's processes stays where it was, epoch after epoch, on 1.2 M paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import coordl

PATHS = 1_200_000
FILES = 100
READ = 8_000  # samples of an epoch, anywhere in the list
EPOCHS = 20
ALLOWED = 24 << 20  # bytes, of some hundreds: the allocators' own coming and going


def to_array(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def held() -> int:
    """Bytes of this process and its children; what they share counts once."""
    me = psutil.Process()
    return sum(one.memory_full_info().pss for one in [me, *me.children(recursive=True)])


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [True, False])
def test_twenty_epochs_take_no_more_memory_than_two(tmp_path: Path, persistent: bool) -> None:
    (tmp_path / "class").mkdir()
    for number in range(FILES):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "class" / f"{number}.png")
    data = coordl.ImageFolder(tmp_path, to_array)
    home = os.fspath(tmp_path / "class")
    data.samples = data.imgs = [(f"{home}/{i % FILES}.png", i % 1000) for i in range(PATHS)]
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=READ)
    loader = coordl.DataLoader(
        data,
        64,
        sampler=sampler,
        num_workers=2,
        prep="python",
        multiprocessing_context="fork",
        persistent_workers=persistent,
    )
    at_end: list[int] = []
    for _ in range(EPOCHS):
        for number, (images, targets) in enumerate(loader):
            if number == READ // 64 - 4:
                at_end.append(held())
            assert torch.equal(images[:, 0, 0, 0].long(), targets % FILES)
    print("MiB by epoch:", [size >> 20 for size in at_end])
    assert max(at_end[2:]) - at_end[1] < ALLOWED
