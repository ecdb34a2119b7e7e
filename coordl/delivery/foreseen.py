"""The begin of the next pass, made while the consumer has the last minibatches of this one.

It is a guess: that nothing but the loader draws from the generators of its order, and that the next
epoch has the next number. The next pass draws its order as ever, and takes what it finds made.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from coordl import _native
from coordl.delivery.native_epoch import Minibatch, NativeEpoch

_STAT_THREADS = 8


class Foreseen:
    """Minibatches of a pass to come, and the native threads that make them, and then go on.

    Args:
        epoch: of the pass before it.
        key: (seed, epoch) of its draws.
        order: its minibatches' indices.
        prep_threads: as many.
    """

    def __init__(
        self,
        epoch: NativeEpoch,
        key: tuple[int, int],
        order: Iterator[list[int]],
        prep_threads: int,
    ) -> None:
        self._epoch, self._key, self._order = epoch, key, order
        self.threads = epoch.threads(prep_threads)
        self.close = weakref.finalize(self, self.threads.close)
        self._pid = os.getpid()
        self._made: deque[Minibatch] = deque()
        self._looked_at: list[tuple[list[str], Any]] = []  # paths, and how their files were
        self._samples = 0

    def __len__(self) -> int:
        return len(self._made)

    def make(self) -> bool:
        """Starts one more; False when there is none."""
        try:
            indices, rows = self._epoch.folder.positions(next(self._order))
        except (StopIteration, IndexError):  # of the pass itself it is an error
            self._order = iter(())
            return False
        draws = indices
        if self._epoch.seed is None:
            draws = np.arange(self._samples, self._samples + len(indices))
        self._samples += len(indices)
        if self._epoch.tiers is None and self._epoch.folder.objects is None:
            # With a cache, the next pass begins with a look at all files.
            paths = [self._epoch.folder.path(row) for row in rows]
            self._looked_at.append((paths, _native.stat_files(paths, _STAT_THREADS)))
        ticket = self.threads.ticket(rows, draws, *self._key)
        self.threads.announce(ticket)
        self._epoch.audit(rows[ticket.missing])
        minibatch = Minibatch(indices, rows, draws, ticket=ticket, foreseen=True)
        self.threads.submit(ticket, self._epoch.provide(minibatch))
        self._made.append(minibatch)
        return True

    def is_for(self, epoch: NativeEpoch, key: tuple[int, int], first: Any) -> bool:
        """Whether that is the pass that came: same files, draws, and indices of the first."""
        was, self._order = self._epoch, iter(())  # that may be long, and is drawn anew
        return (
            self._pid == os.getpid()
            and epoch.items is was.items
            and (epoch.tiers, epoch.form) == (was.tiers, was.form)
            and key == self._key
            and bool(self._made)
            and list(first or ()) == self._made[0].indices.tolist()
            and not any(_changed(*looked_at) for looked_at in self._looked_at)
        )

    def give(self, rows: np.ndarray, draws: np.ndarray) -> Minibatch | None:
        """The next that was made, if it is of those samples; after one that is not, none."""
        if self._made and not (
            np.array_equal(self._made[0].rows, rows) and np.array_equal(self._made[0].draws, draws)
        ):
            self._made.clear()
        return self._made.popleft() if self._made else None


def _changed(paths: list[str], were: tuple[np.ndarray, ...]) -> bool:
    """Whether one of those files is another than it was: size, time of change, errno of a look."""
    now = _native.stat_files(paths, _STAT_THREADS)
    return not all(np.array_equal(then, seen) for then, seen in zip(were, now, strict=True))
