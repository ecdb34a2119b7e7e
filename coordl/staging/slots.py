"""Slots: shared memory that worker processes write minibatches to, used again when it is free.

The consumer makes a slot, names it to a worker, and maps it when the minibatch has come. It is free
again when the last tensor over it has died; tensors that live keep theirs. Where more are asked for
than the pool keeps, the rest are used once.

A slot is a memfd: no name to leak, no share of /dev/shm. Workers open it through /proc, so slots
can be made and dropped while workers run.

A forked child that inherits a minibatch must not see its slot being written to again: what is in
use when the process forks is inherited and never used again; what is free the child does not get.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordl import _native

_libc = ctypes.CDLL(None)
_PR_GET_DUMPABLE = 3
_NOEXEC_SEAL = 0x8  # MFD_NOEXEC_SEAL: some systems demand it, kernels before 6.3 know it not

_in_use: set[Slot] = set()
_pools: weakref.WeakSet[SlotPool] = weakref.WeakSet()
# Pools without an iterator that keep their slots for the next: a loader for training and one for
# validation, in turns. Those of further loaders are made anew when they are used again.
_IDLE_KEPT = 2
_idle: list[weakref.ref[SlotPool]] = []  # oldest first


def memory_file(name: str) -> int:
    """Descriptor of new shared memory without a name, of 0 bytes. Raises OSError."""
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError:
        return os.memfd_create(name, os.MFD_CLOEXEC)


def reachable() -> bool:
    """Whether other processes of this user may open our descriptors. (One that has changed its
    user is closed to them, as is one that asked for it.)"""
    return bool(_libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1)


@dataclass(frozen=True)
class SlotName:
    """What a worker needs to find a slot.

    Attributes:
        number: never given twice by a pool.
        fd: its descriptor in the consumer.
        inode: by which one sees whether the descriptor is still the slot's.
        once: used for one minibatch only.
    """

    number: int
    fd: int
    inode: int
    once: bool

    def open(self, consumer: int, flags: int = 0) -> int:
        """A descriptor of our own for it. Raises OSError, also when it is no longer there."""
        fd = os.open(f"/proc/{consumer}/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC | flags)
        if os.fstat(fd).st_ino != self.inode:
            os.close(fd)
            raise FileNotFoundError(f"slot {self.number} is gone")
        return fd


class Slot:
    """One slot, in the consumer."""

    def __init__(self, number: int, once: bool) -> None:
        fd = memory_file("coordl-slot")
        self.name = SlotName(number, fd, os.fstat(fd).st_ino, once)
        self.once = once  # becomes true when a forked child inherits it
        self.open = True
        self._mapping: _native.SharedMapping | None = None

    def array(self, size: int) -> np.ndarray:
        """Its first bytes, at least `size`: a new array, uint8, which keeps the memory alive."""
        if self._mapping is None or len(self._mapping) < size:
            self._mapping = _native.SharedMapping(self.name.fd, size)
            with suppress(OSError):  # all pages are there: this only spares their first touch
                self._mapping.populate()
        return self._mapping.array()

    def let_children_see_it(self) -> None:
        self.once = True
        if self._mapping is not None:
            self._mapping.inherit(True)

    def close(self) -> None:
        """Nobody can open it any more; who has it mapped keeps it."""
        if self.open:
            self.open = False
            os.close(self.name.fd)

    def __del__(self) -> None:
        if getattr(self, "open", False):
            self.close()


class SlotPool:
    """Slots of one loader. It outlives the loader's iterators, so that epochs share them.

    Any thread of the consumer may use it: every step is one operation on a list or set.

    Attributes:
        limit: how many slots are kept for reuse.
        retired: numbers of slots that workers may forget, oldest first.
        figures: minibatches "staged", of them in a slot used "once", and those with tensors sent
            "as_torch" does.
        why: the last reason for the latter, or empty.
    """

    def __init__(self) -> None:
        self.limit = 0
        self.retired: list[int] = []
        self.figures = {"staged": 0, "once": 0, "as_torch": 0}
        self.why = ""
        self._free: list[Slot] = []
        self._kept: set[Slot] = set()
        self._made: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._numbers = itertools.count()
        self._iterators = 0
        self._keeps = True
        _pools.add(self)

    def take(self) -> Slot:
        """A slot nobody looks at. Raises OSError (no descriptor is left)."""
        try:
            return self._free.pop()  # the one that was used last: the caches know it best
        except IndexError:
            once = len(self._kept) >= self.limit
        slot = Slot(next(self._numbers), once)
        self._made.add(slot)
        if not once:
            self._kept.add(slot)
        return slot

    def give_back(self, slot: Slot) -> None:
        """Of a slot that no tensor lies over, here or in a worker."""
        if slot in self._kept and not slot.once and self._keeps:
            self._free.append(slot)
        else:
            self.retire(slot)

    def retire(self, slot: Slot) -> None:
        """It is not used again. Tensors over it stay as they are."""
        if slot in self._kept:
            self._kept.discard(slot)
            self.retired.append(slot.name.number)
        slot.close()

    def lease(self, slot: Slot, size: int) -> np.ndarray:
        """The slot's bytes (uint8, at least `size`); it is free when all made over them died."""
        array = slot.array(size)
        if slot.once:
            slot.close()  # so that minibatches that are kept cost no descriptor
        _in_use.add(slot)
        end = weakref.finalize(array, _end_of_lease, weakref.ref(self), slot)
        end.atexit = False
        return array

    def begun(self) -> None:
        """An iterator uses it."""
        self._iterators += 1
        self._keeps = True
        _idle[:] = [one for one in _idle if one() not in (None, self)]

    def ended(self) -> None:
        """An iterator is done with it; with the last, others that are idle for longer let go."""
        self._iterators -= 1
        if self._iterators:
            return
        _idle[:] = [one for one in _idle if one() not in (None, self)] + [weakref.ref(self)]
        for one in _idle[:-_IDLE_KEPT]:
            if (pool := one()) is not None:
                pool.let_go()
        del _idle[:-_IDLE_KEPT]

    def let_go(self) -> None:
        """Of the slots that are free, and of others once they are."""
        self._keeps = False
        while self._free:
            self.retire(self._free.pop())

    def stats(self) -> dict[str, Any]:
        """The figures, `slots` kept for reuse, their `slot_bytes` together, and `why`."""
        sizes = [os.fstat(slot.name.fd).st_size for slot in list(self._kept) if slot.open]
        return {**self.figures, "slots": len(sizes), "slot_bytes": sum(sizes), "why": self.why}

    def _forget(self) -> None:
        """In a forked child: the parent goes on using these."""
        for slot in list(self._made):
            slot.close()
        self._kept, self._free = set(), []


def _end_of_lease(pool: weakref.ref[SlotPool], slot: Slot) -> None:
    _in_use.discard(slot)
    owner = pool()
    if owner is not None:
        owner.give_back(slot)


def _before_fork() -> None:
    for slot in list(_in_use):
        slot.let_children_see_it()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool._forget()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
