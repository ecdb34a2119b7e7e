"""A data set for spawned workers: pickled once for all of them, its bytes in shared memory."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

from coordl import _native
from coordl.staging.slots import SlotName, memory_file, reachable


@dataclass(frozen=True)
class Shipment:
    """What a worker gets in place of the data set."""

    name: SlotName
    size: int

    def open(self, consumer: int) -> Any:
        """The data set. Raises what unpickling it raises."""
        fd = self.name.open(consumer)
        try:
            mapping = _native.SharedMapping(fd, self.size)
        finally:
            os.close(fd)
        return pickle.loads(mapping.array().data)


_ANYWHERE = ("_reduce_method", "_reduce_method_descriptor", "_reduce_partial")


class _Plain(ForkingPickler):
    """Refuses what belongs to one receiver: descriptors, and memory shared by them (tensors)."""

    def reducer_override(self, thing: Any) -> Any:
        reduce = self._extra_reducers.get(type(thing))  # type: ignore[attr-defined]
        if reduce is not None and reduce.__name__ not in _ANYWHERE:
            raise pickle.PicklingError(f"a {type(thing).__name__} is sent to one process")
        return NotImplemented


class _File:
    """A memfd that pickle writes to."""

    def __init__(self) -> None:
        self.fd = memory_file("coordl-dataset")
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        sent = 0
        while sent < len(view):
            sent += os.write(self.fd, view[sent:])
        self.size += sent
        return sent


def ship(dataset: Any) -> tuple[Shipment, int] | None:
    """What workers get, and the descriptor to close when they all have it; None where the data set
    has to be pickled for each, or cannot be (torch then says why)."""
    if not reachable():
        return None
    file = _File()
    try:
        _Plain(file, pickle.HIGHEST_PROTOCOL).dump(dataset)
    except Exception:  # of any class: it is what users' __reduce__ and __getstate__ raise
        os.close(file.fd)
        return None
    name = SlotName(0, file.fd, os.fstat(file.fd).st_ino, once=False)
    return Shipment(name, file.size), file.fd
