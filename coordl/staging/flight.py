"""Minibatches on their way: which slot and which indices each was sent with, of one iterator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordl.staging.parcel import Parcel, flights
from coordl.staging.slots import Slot, SlotName, SlotPool

_numbers = itertools.count()


@dataclass
class Sent:
    """One minibatch that a worker was asked for."""

    slot: Slot | None
    worker: int
    index: Any


class Flight:
    """The slots of one iterator's minibatches.

    Attributes:
        number: names it in parcels.
        sent: what has not come back, by torch's number of the minibatch in this epoch.
    """

    def __init__(self, pool: SlotPool, workers: int) -> None:
        self.number = next(_numbers)
        self.sent: dict[int, Sent] = {}
        self._pool = pool
        self._told = [len(pool.retired)] * workers  # of the retired ones, by worker
        self._open = True
        pool.begun()
        flights[self.number] = self

    def send(self, task: int, worker: int, index: Any) -> tuple[SlotName | None, list[int]]:
        """A slot for a minibatch, and which ones the worker may forget."""
        if task == 0:  # torch counts from 0 again when all workers are done with the former epoch
            self._reclaim(list(self.sent))
        slot = None
        try:
            slot = self._pool.take()
        except OSError as error:  # no descriptor is left
            self._pool.why = str(error)
        self.sent[task] = Sent(slot, worker, index)
        retired = self._pool.retired[self._told[worker] :]
        self._told[worker] += len(retired)
        return None if slot is None else slot.name, retired

    def arrived(self, parcel: Parcel) -> np.ndarray | None:
        """The bytes of the slot a parcel lies in, uint8; the slot is free when the array dies."""
        sent = self.sent.pop(parcel.task, None)
        figures = self._pool.figures
        figures["as_torch" if parcel.as_torch else "staged"] += 1
        if parcel.why:
            self._pool.why = parcel.why
        if sent is None or sent.slot is None:
            return None
        if parcel.slot != sent.slot.name.number:  # nothing lies in it
            self._pool.give_back(sent.slot)
            return None
        figures["once"] += sent.slot.once
        return self._pool.lease(sent.slot, parcel.size)

    def answered(self, task: Any) -> None:
        """A worker answered without a parcel: an error, or its data set's end."""
        if task in self.sent:
            self._reclaim([task])

    def ended(self, worker: int) -> None:
        """A worker's data set ended: it skips what it was sent since."""
        self._reclaim([task for task, sent in self.sent.items() if sent.worker == worker])

    def indices(self) -> dict[int, Any]:
        return {task: sent.index for task, sent in self.sent.items()}

    def close(self, all_gone: bool) -> None:
        """At the end of the workers; slots that one of them may still write to are let go."""
        if not all_gone:
            for sent in self.sent.values():
                if sent.slot is not None:
                    self._pool.retire(sent.slot)
            self.sent.clear()
        self._reclaim(list(self.sent))
        if self._open:
            self._open = False
            self._pool.ended()

    def _reclaim(self, tasks: list[int]) -> None:
        for task in tasks:
            sent = self.sent.pop(task, None)
            if sent is not None and sent.slot is not None:
                self._pool.give_back(sent.slot)
