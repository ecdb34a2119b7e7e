"""What the conformance tests load, and how two loaders' output is compared.

All of it can be pickled, so that spawned workers find it.
"""

from __future__ import annotations

import os
import re
from collections import namedtuple
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.utils.data

import coordl

COUNT = 12
Pair = namedtuple("Pair", ["value", "name"])


@dataclass(frozen=True)
class Engine:
    """A data set, and the options with which one of our engines serves it.

    Attributes:
        options: given to both loaders.
        ours_only: given to coordl's.
    """

    name: str
    dataset: Any
    options: dict[str, Any] = field(default_factory=dict)
    ours_only: dict[str, Any] = field(default_factory=dict)

    def ours(self, **changes: Any) -> coordl.DataLoader:
        return coordl.DataLoader(self.dataset, **{**self.options, **self.ours_only, **changes})

    def stock(self, **changes: Any) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(self.dataset, **{**self.options, **changes})

    @property
    def workers(self) -> int:
        return int(self.options.get("num_workers", 0))


def named(value: Any) -> str:
    """What a parameter is called: without addresses, the same in every process."""
    return re.sub(r" (object )?at 0x[0-9a-f]+", "", str(value))


class Numbers(torch.utils.data.Dataset):
    """Sample i is (two floats made of i, i)."""

    def __init__(self, count: int = COUNT) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not -self.count <= index < self.count:
            raise IndexError(f"no sample {index}")
        return torch.tensor([float(index), index / 2]), int(index)


class Batched(Numbers):
    """The same, several samples at a time; each says how many were asked for at once."""

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        return [(torch.tensor([float(i), len(indices)]), int(i)) for i in indices]


class Stream(torch.utils.data.IterableDataset):
    """0, 1, 2, ...: each worker its residue class, or each everything."""

    def __init__(self, count: int = COUNT, split: bool = True) -> None:
        self.count, self.split = count, split

    def __iter__(self) -> Iterator[int]:
        info = torch.utils.data.get_worker_info()
        if info is None or not self.split:
            return iter(range(self.count))
        return iter(range(info.id, self.count, info.num_workers))


class SizedStream(Stream):
    def __len__(self) -> int:
        return self.count


class Who(torch.utils.data.Dataset):
    """Sample i is who made it: worker, number of workers, its seed, process, torch's threads."""

    marked_by = -1  # what mark() leaves in the worker's copy

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, int]:
        info = torch.utils.data.get_worker_info()
        assert info is not None and info.seed == torch.initial_seed()
        return {
            "index": index,
            "worker": info.id,
            "workers": info.num_workers,
            "seed": info.seed,
            "process": os.getpid(),
            "threads": torch.get_num_threads(),
            "own": int(info.dataset is self),
            "marked_by": self.marked_by,
        }


def mark(worker: int) -> None:
    """A worker_init_fn that writes into the worker's copy of the data set."""
    info = torch.utils.data.get_worker_info()
    assert info is not None and info.id == worker
    info.dataset.marked_by = worker


class Failing(Numbers):
    """Numbers whose sample 5 raises what it was given."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 5:
            raise self.error
        return super().__getitem__(index)


class TwoPartError(Exception):
    """Cannot be built from one message."""

    def __init__(self, what: str, where: int) -> None:
        super().__init__(f"{what} at {where}")


def as_float(image: torch.Tensor) -> torch.Tensor:
    """A transform coordl does not know."""
    return image.float() * 2


def summed(samples: list[Any]) -> tuple[torch.Tensor, list[int]]:
    """A collate_fn of one's own."""
    return sum(sample[0].float() for sample in samples), [sample[1] for sample in samples]


def same(left: Any, right: Any) -> bool:
    """Equal in type, structure, dtype, shape and value; uint8 pixels within one level."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        if (left.dtype, left.shape) != (right.dtype, right.shape):
            return False
        if left.dtype is torch.uint8:
            return bool(((left.int() - right.int()).abs() <= 1).all())
        if left.is_floating_point() and left.dim() == 4:  # doubled levels, see as_float
            return bool(((left - right).abs() <= 2).all())
        return torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, Mapping):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def indices(batches: Any) -> list[Any]:
    """The numbers of the samples, minibatch by minibatch."""
    return [batch[1].tolist() for batch in batches]


@contextmanager
def passing(loader: Any) -> Iterator[Any]:
    """One pass over a loader, whose workers end with the block.

    After an error of a worker's, torch's iterator is part of a cycle; the garbage collector takes
    its pipes before it can tell its workers to end, and then waits five seconds for each.
    """
    iterator = iter(loader)
    try:
        yield iterator
    finally:
        getattr(iterator, "_shutdown_workers", lambda: None)()


def outcome(make: Any, *args: Any, **kwargs: Any) -> tuple[str, str] | None:
    """(class, message) of what it raises, None where it does not."""
    try:
        make(*args, **kwargs)
    except Exception as error:
        return type(error).__qualname__, str(error)
    return None
