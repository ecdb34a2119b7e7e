"""With seed=, bits depend on (seed, epoch, index): held against a slow plain reference."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from PIL import Image
from recipe import train_transform
from torch.utils.data import default_collate

import coordl
from coordl import transforms as T
from coordl.prep.keyed import keyed_draws

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

SEED = 11
WORKERS = (0, 1, 2, 8)


class FromAll:
    """Draws from Python's, NumPy's and torch's generators, as transforms of users do."""

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        left = random.randrange(picture.width // 2)
        top = int(np.random.randint(picture.height // 2))
        turned = picture.crop((left, top, left + 64, top + 64)).rotate(random.gauss(0, 9))
        levels = torch.from_numpy(np.array(turned)).float()
        return levels * torch.rand(3) + np.float32(np.random.normal())


def collate(samples: list[Any]) -> Any:
    """torch's own under another name: samples are then made in worker processes."""
    return default_collate(samples)


def order_of(count: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(epoch)).tolist()


class ByEpoch(torch.utils.data.Sampler):
    epoch = 0

    def __init__(self, count: int) -> None:
        self.count = count

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter(order_of(self.count, self.epoch))

    def __len__(self) -> int:
        return self.count


def reference(data: Any, epoch: int, size: int) -> list[Any]:
    """Sample by sample, in one process, by nothing but the definition."""
    batches = []
    for at in range(0, len(data), size):
        samples = []
        for index in order_of(len(data), epoch)[at : at + size]:
            with keyed_draws(SEED, epoch, index):
                samples.append(data[index])
        batches.append(default_collate(samples))
    return batches


def same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def loader(data: Any, workers: int, **more: Any) -> coordl.DataLoader:
    return coordl.DataLoader(
        data, 5, sampler=ByEpoch(len(data)), num_workers=workers, seed=SEED, **more
    )


def interrupted(data: Any, before: int, after: int, epoch: int, **more: Any) -> list[Any]:
    first = loader(data, before, **more)
    first.sampler.set_epoch(epoch)  # type: ignore[union-attr]
    got = list(itertools.islice(iter(first), 2))
    second = loader(data, after, **more)
    second.load_state_dict(first.state_dict())
    return got + list(second)


def epoch_of(data: Any, workers: int, epoch: int, **more: Any) -> list[Any]:
    one = loader(data, workers, **more)
    one.sampler.set_epoch(epoch)  # type: ignore[union-attr]
    return list(one)


def test_python_transforms_give_the_references_bits_with_any_number_of_workers(
    folder: Path,
) -> None:
    data = coordl.ImageFolder(folder, FromAll())
    for epoch in (0, 3):
        expected = reference(data, epoch, 5)
        for workers in WORKERS:
            assert same(epoch_of(data, workers, epoch), expected)
        for before, after in ((0, 2), (2, 0), (8, 1)):
            assert same(interrupted(data, before, after, epoch), expected)


def test_native_plans_give_the_same_bits_in_threads_and_in_processes(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(32))
    for epoch in (0, 3):
        expected = epoch_of(data, 0, epoch, prep="native")
        for workers in WORKERS[1:]:
            assert same(epoch_of(data, workers, epoch, prep="native"), expected)
        for workers in (0, 2):  # a collate function of one's own wants processes
            assert same(epoch_of(data, workers, epoch, collate_fn=collate), expected)
        for before, after in ((0, 2), (2, 0), (8, 1)):
            assert same(interrupted(data, before, after, epoch), expected)
        first = loader(data, 2)
        first.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        got = list(itertools.islice(iter(first), 2))
        second = loader(data, 2, collate_fn=collate)  # from threads into processes
        second.load_state_dict(first.state_dict())
        assert same(got + list(second), expected)


def test_native_first_transforms_and_python_ones_after_them_are_keyed(folder: Path) -> None:
    data = coordl.ImageFolder(folder, T.Compose([T.RandomResizedCrop(80), FromAll()]))
    runs = [epoch_of(data, workers, 1) for workers in WORKERS]
    assert all(same(run, runs[0]) for run in runs[1:])
    assert same(interrupted(data, 2, 0, 1), runs[0])
    assert not same(epoch_of(data, 0, 2), runs[0])


def test_a_replaced_sample_is_drawn_with_its_own_key(folder: Path) -> None:
    data = coordl.ImageFolder(folder, FromAll())
    Path(data.samples[7][0]).write_bytes(b"")

    def instead(error: coordl.ItemError) -> Any:
        return torch.rand(64, 64, 3) + random.random(), error.index

    with keyed_draws(SEED, 0, 7):
        expected = torch.rand(64, 64, 3) + random.random()
    for workers in (0, 1):
        batches = epoch_of(data, workers, 0, on_error=instead)
        row = order_of(22, 0).index(7)
        assert torch.equal(batches[row // 5][0][row % 5], expected)
        assert batches[row // 5][1][row % 5] == 7
