"""Samples that Python makes, once for all jobs of a group: worker processes meet in its ring.

A run is one sample here, and its record whatever the data set returns for it, pickled. Each worker
is a member of its own. A minibatch is gone through twice: first what nobody has claimed is made,
then what others made is taken. So workers of several jobs that are asked for the same minibatch
make a part of it each.

No more workers of all jobs make samples at a time than there are cores, or than one of the jobs
has: the others wait for their turn, or for what those make. Who gets none for as long as it would
wait for a silent holder stops asking for a while: those who have their turn may be stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from coordl import _native
from coordl.cores import usable_cores
from coordl.fetch.tally import Tally
from coordl.prep.keyed import KeyedDataset
from coordl.staging import group as groups
from coordl.staging.record import from_record, to_record

COUNTED = ("prepared", "alone", "staged", "given_up", "taken_over")
_LOOK_MS = 20  # as native/staging/feed.cpp has it
_UNASKED_S = 30.0


class Place(tuple):
    """(epoch, index) of a sample, as keyed data sets are asked for it.

    Attributes:
        position: in the epoch's order; what is beyond its end begins anew.
    """

    position: int

    @classmethod
    def of(cls, epoch: int, index: Any, position: int) -> Place:
        place = cls((epoch, index))
        place.position = position
        return place


class SharedDataset(KeyedDataset):
    """A keyed data set whose samples a group makes together.

    Args:
        dataset, seed: as KeyedDataset's.
        group: this process's membership; a spawned worker joins anew.
        tally: counts COUNTED, of this loader's processes.
        workers: of this loader; a lone job's may all make samples at a time, as without a group.
    """

    def __init__(
        self, dataset: Any, seed: int, group: groups.Group, tally: Tally, workers: int
    ) -> None:
        super().__init__(dataset, seed)
        self._ring: _native.Ring | None = group.ring
        self._again = group.again()
        self._samples = group.facts.samples
        self._patience_s = groups.PATIENCE_S
        self._workers, self._cores = workers, usable_cores()
        self._own_cores = len(os.sched_getaffinity(0))
        self._unasked_until = 0.0
        self._tally = tally
        self._in_process = -1
        self._made: dict[int, Any] = {}  # of the minibatch in hand, by run
        self._silent: dict[int, tuple[int, float]] = {}  # holders: beat, since when

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ring": None, "_made": {}, "_silent": {}, "_in_process": -1}

    @property
    def ring(self) -> _native.Ring:
        if self._ring is None:
            self._ring = self._again()
        if self._in_process != os.getpid():  # each worker is a member, in a pass while it lives
            self._in_process = os.getpid()
            self._ring.ensure_lease()
            self._ring.count_pass(1)
        return self._ring

    def _run(self, place: tuple[int, Any]) -> int:
        assert isinstance(place, Place)
        return int(place[0]) * self._samples + place.position % self._samples

    def prepare(self, keys: Iterable[tuple[int, Any]]) -> None:
        """Makes what nobody has begun to; what fails is asked for again in its turn, and then is
        an error."""
        self._made.clear()
        for key in keys:
            if not isinstance(key, Place):
                return
            run = self._run(key)
            if self.ring.look(run)[0] == "open" and self._claim(run):
                try:
                    self._made[run] = self._make(key, run)
                except Exception:
                    continue

    def __getitem__(self, key: tuple[int, Any]) -> Any:
        if not isinstance(key, Place):  # an order that is nobody else's
            return super().__getitem__(key)
        run = self._run(key)
        self.ring.at(run)
        if run in self._made:
            return self._made.pop(run)
        began = time.monotonic()
        while True:
            heard = self.ring.bell()
            self.ring.listen(run)
            found, holder = self.ring.look(run)
            if found == "staged":
                record = self.ring.take(run)
                if record:
                    self._count("staged")
                    return from_record(record)
                if record is not None:
                    break  # it is there for nobody: too large, or cannot be pickled
            elif found == "gone":
                break
            elif found == "open":
                if self._claim(run):
                    return self._make(key, run)
                now = time.monotonic()
                if now - began >= self._patience_s:
                    if now < self._unasked_until:  # no turn is wanting: a stopped member reads it
                        self._count("given_up")
                        break
                    self._unasked_until = now + _UNASKED_S
            elif (waited := self._silence(holder)) >= _LOOK_MS / 1000:
                if self._claim(run):  # the holder is dead
                    self._count("taken_over")
                    return self._make(key, run)
                if waited >= self._patience_s:
                    self._count("given_up")
                    break
            self.ring.wait(heard, _LOOK_MS)
        self._count("alone")
        self.ring.count_pass(1)
        try:
            return super().__getitem__(key)
        finally:
            self.ring.count_pass(-1)

    def _claim(self, run: int) -> bool:
        """Takes a core and the run, for _make(); False where one of them is not to be had now."""
        self.ring.count_pass(1)  # first counted, then looked: two at once may both step back
        unasked = time.monotonic() < self._unasked_until
        if (unasked or self.ring.active(2) <= self._turns()) and self.ring.claim(run):
            return True
        self.ring.count_pass(-1)
        return False

    def _turns(self) -> int:
        """How many may make samples at a time: other jobs may be bound to other cores."""
        cores = self._cores * self.ring.cores() // self._own_cores
        return max(self._workers, self._cores, cores)

    def _make(self, key: tuple[int, Any], run: int) -> Any:
        """A sample of ours to make, staged for the others."""
        try:
            sample = super().__getitem__(key)
        except BaseException:
            self.ring.release(run)
            raise
        finally:
            self.ring.count_pass(-1)
        try:
            record = to_record(sample)
        except Exception:  # then each job makes it
            record = b""
        if not record or not self.ring.put(run, record):
            self._count("alone")
        else:
            self._count("prepared")
        return sample

    def _silence(self, holder: int) -> float:
        """Seconds since the holder's last sign of life that was seen from here."""
        beat, now = self.ring.beat_of(holder), time.monotonic()
        known, since = self._silent.get(holder, (-1, now))
        if known != beat:
            since = now
        self._silent[holder] = beat, since
        return now - since

    def _count(self, what: str) -> None:
        self._tally.add(what, 1)
        if what in ("prepared", "alone", "staged"):
            self.ring.count(*(int(what == name) for name in ("prepared", "alone", "staged")))
