"""Random draws of Python transforms, keyed by (seed, epoch, index).

Python's, NumPy's and torch's global generators are seeded anew before each sample, so a sample's
bits depend on its key only: not on the worker that had it, nor on what ran before.
"""

from __future__ import annotations

import hashlib
import random
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.utils.data

from coordl.staging.around import AroundCollate

_MASK = (1 << 64) - 1
_here = threading.local()


def current_key() -> tuple[int, int] | None:
    """(seed, epoch) of the keyed_draws() this thread is inside of; None outside."""
    return getattr(_here, "key", None)


@contextmanager
def keyed_draws(seed: int, epoch: int, index: Any) -> Iterator[None]:
    """Inside, `random`, `numpy.random` and torch's CPU generator start from the key.

    In a worker process they are left as they are then; in the main process, where a script's own
    draws would be disturbed, they are put back.
    """
    ours = torch.utils.data.get_worker_info() is not None
    before = None if ours else (random.getstate(), np.random.get_state(), torch.get_rng_state())
    outer, _here.key = current_key(), (seed & _MASK, epoch & _MASK)
    key = _digest(seed, epoch, index)
    random.seed(key[:16])
    np.random.seed(np.frombuffer(key[16:32], np.uint32))
    torch.default_generator.manual_seed(int.from_bytes(key[32:40], "little", signed=True))
    try:
        yield
    finally:
        _here.key = outer
        if before is not None:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


def note_asked(key: tuple[int, Any]) -> None:
    """Says which (epoch, index) is the last of the minibatch that this thread makes."""
    _here.asked = key


class KeyedCollate(AroundCollate):
    """A collate function of the user's, whose draws are keyed as well: by the minibatch's last
    index, whoever made its samples."""

    def __init__(self, collate: Any, seed: int) -> None:
        self.collate = collate
        self.seed = seed

    def __call__(self, samples: Any) -> Any:
        epoch, index = _here.asked
        with keyed_draws(self.seed, epoch, ("collate", index)):
            return self.collate(samples)


def _digest(seed: int, epoch: int, index: Any) -> bytes:
    try:
        number = index.__index__()
        key = struct.pack("<QQq", seed & _MASK, epoch & _MASK, number)
    except (AttributeError, TypeError):  # data sets may be indexed by anything: names, tuples
        key = struct.pack("<QQ", seed & _MASK, epoch & _MASK) + repr(index).encode()
    return hashlib.blake2b(key, digest_size=40, person=b"coordl.draws").digest()


class KeyedDataset(torch.utils.data.Dataset):
    """A data set whose samples are asked for as (epoch, index) and drawn with that key.

    It has no `__getitems__`: each sample has a key of its own.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def prepare(self, keys: Iterable[tuple[int, Any]]) -> None:
        """Called with a minibatch's keys before they are asked for one by one."""

    def __getitem__(self, key: tuple[int, Any]) -> Any:
        epoch, index = key
        with keyed_draws(self.seed, epoch, index):
            return self.dataset[index]
