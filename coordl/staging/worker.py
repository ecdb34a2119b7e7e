"""A worker process' end: torch's own loop between queues that know of slots.

A task arrives with the name of a slot. default_collate stacks straight into it; what another
collate_fn returns is copied there, for it may keep what it returned.
"""

from __future__ import annotations

import gc
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data._utils import collate as torch_collate
from torch.utils.data._utils.worker import _IterableDatasetStopIteration, _ResumeIteration

from coordl import _native
from coordl.staging.around import AroundCollate
from coordl.staging.memory import room
from coordl.staging.parcel import (
    INLINE_BYTES,
    Packer,
    Parcel,
    as_bytes,
    identity_of,
    storage_over,
)
from coordl.staging.ship import Shipment
from coordl.staging.slots import SlotName
from coordl.staging.watch import Beat, Berth

_ALIGNED = 64  # bytes: whatever a vector instruction wants
_HUGE = 2 << 20
_PAGE = 4096
_AS_THEY_ARE = (ExceptionWrapper, _IterableDatasetStopIteration, _ResumeIteration)


@dataclass(frozen=True)
class Setup:
    """What a worker is told at its start.

    Attributes:
        consumer: PID of the process that made the loader's iterator.
        flight: number of that iterator, see parcel.flights.
        worker: number of this worker.
        berth: where it says what it is at, or None.
    """

    consumer: int
    flight: int
    worker: int
    berth: Berth | None


@dataclass
class Reached:
    """A slot in this process."""

    name: SlotName
    mapping: _native.SharedMapping | None = None
    array: Any = field(default=None, repr=False)


class Station:
    """The slot of the minibatch in work, and what lies in it so far."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._reached: dict[int, Reached] = {}
        self._wanted = 0  # what the last minibatch took
        self._task = -1
        self._slot: Reached | None = None
        self._used = 0
        self._placed: dict[int, int] = {}  # identity of a storage in the slot -> offset
        self._storages: list[torch.UntypedStorage] = []  # those, so that none is another's heir
        self._why = ""

    def begin(self, task: int, name: SlotName | None, retired: list[int]) -> None:
        """The next minibatch; nobody looks any more at what the slot holds."""
        for number in retired:
            self._reached.pop(number, None)
        self._task, self._slot, self._used, self._why = task, None, 0, ""
        self._placed, self._storages = {}, []
        if name is not None:
            self._slot = self._reached.get(name.number) or Reached(name)
            if not name.once:
                self._reached[name.number] = self._slot

    def storage(self, size: int) -> torch.UntypedStorage | None:
        """Memory in the slot, or None where there is none."""
        place = self._place(size)
        if place is None:
            return None
        array, offset = place
        storage = storage_over(array, size, offset)
        self._note(storage, offset)
        return storage

    def _note(self, storage: torch.UntypedStorage, offset: int) -> None:
        self._placed[identity_of(storage)] = offset
        self._storages.append(storage)

    def pack(self, data: Any) -> Parcel:
        """The minibatch, ready for the result queue. Raises whatever pickling it raises."""
        file = io.BytesIO()
        packer = Packer(file, self._put, self._placed)
        packer.dump(data)
        slot, number, size = self._slot, -1, 0
        if slot is not None and slot.mapping is not None and self._used:
            number, size = slot.name.number, len(slot.mapping)
        self._wanted = self._used
        self._slot, self._placed, self._storages = None, {}, []
        pickled, flight = file.getvalue(), self._setup.flight
        return Parcel(flight, self._task, number, size, pickled, packer.as_torch, self._why)

    def _put(self, storage: torch.UntypedStorage) -> int | None:
        place = self._place(storage.nbytes())
        if place is None:
            return None
        array, offset = place
        array[offset : offset + storage.nbytes()] = as_bytes(storage).numpy()
        self._note(storage, offset)
        return offset

    def _place(self, size: int) -> tuple[np.ndarray, int] | None:
        slot = self._slot
        if slot is None or self._why:
            return None
        offset = -(-self._used // _ALIGNED) * _ALIGNED
        end = offset + size
        if slot.mapping is None or len(slot.mapping) < end:
            try:
                slot.mapping = self._mapped(slot.name, end)
            except (OSError, MemoryError) as error:
                self._why = str(error)
                return None
            slot.array = slot.mapping.array()
        self._used = end
        return slot.array, offset

    def _mapped(self, name: SlotName, size: int) -> _native.SharedMapping:
        """The slot, made larger where it is smaller than `size`."""
        fd = name.open(self._setup.consumer)
        try:
            has, wanted = os.fstat(fd).st_size, 0
            if has < size:
                unit = _HUGE if size >= _HUGE else _PAGE
                # (What is used once may be kept: it shall take what it needs.)
                likely = size if name.once else max(size, self._wanted)
                wanted = -(-likely // unit) * unit
                if wanted - has > room():
                    raise MemoryError(f"no memory for a slot of {wanted:,} bytes and some to spare")
                os.ftruncate(fd, wanted)
            try:
                mapping = _native.SharedMapping(fd, max(has, wanted))
                if not mapping.populate():
                    os.posix_fallocate(fd, 0, max(has, wanted))
            except OSError:
                os.ftruncate(fd, has)
                raise
            return mapping
        finally:
            os.close(fd)


class Indices:
    """torch's index queue, seen by the worker: what comes is noted, and handed on as torch's."""

    def __init__(self, queue: Any, station: Station, beat: Beat | None, step_by_step: bool) -> None:
        self._queue, self._station, self._beat = queue, station, beat
        self._step_by_step = step_by_step

    def get(self, timeout: float) -> Any:
        got = self._queue.get(timeout=timeout)
        if type(got) is not tuple:
            return got
        task, index, name, retired = got
        self._station.begin(task, name, retired)
        if self._beat is not None:
            self._beat.task(task)
            if self._step_by_step and type(index) is list:
                index = Noted(index, self._beat)
        return task, index


class Noted(list):
    """A minibatch's indices; says which of them torch's fetcher is at."""

    def __init__(self, indices: list[Any], beat: Beat) -> None:
        super().__init__(indices)
        self._beat = beat

    def __iter__(self) -> Any:
        for position, index in enumerate(super().__iter__()):
            self._beat.at(position)
            yield index
        self._beat.at(-1)


class Results:
    """torch's result queue, seen by the worker: minibatches leave as parcels."""

    def __init__(self, queue: Any, station: Station, worker: int) -> None:
        self._queue, self._station, self._worker = queue, station, worker

    def put(self, item: tuple[Any, Any]) -> None:
        task, data = item
        # (A worker's acknowledgement has no data.)
        if not isinstance(data, _AS_THEY_ARE) and not isinstance(task, _ResumeIteration):
            try:
                data = self._station.pack(data)
            except Exception:  # torch's feeder thread would print it, the consumer wait for ever
                where = f"in DataLoader worker process {self._worker}"
                data = ExceptionWrapper(where=where)  # type: ignore[no-untyped-call]
        self._queue.put((task, data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


class CollateIntoSlot:
    """torch's default_collate, but that tensors are stacked in the slot."""

    def __init__(self, station: Station) -> None:
        self._stack = Stack(station.storage)

    def __call__(self, samples: Any) -> Any:
        functions: dict[Any, Any] = dict(torch_collate.default_collate_fn_map)
        if isinstance(functions.get(torch.Tensor), Stack):  # not one of the user's
            functions[torch.Tensor] = self._stack
        return torch_collate.collate(samples, collate_fn_map=functions)


class Stack:
    """What torch's collate_tensor_fn does in a worker, with the same `out`, but in memory of ours.

    So results and errors are torch's, whatever samples there are: of classes of their own, ragged,
    of mixed types, in any layout of strides.
    """

    def __init__(self, storage: Callable[[int], torch.UntypedStorage | None]) -> None:
        self._storage = storage

    def __call__(
        self, batch: list[torch.Tensor], *, collate_fn_map: Mapping[Any, Any] | None = None
    ) -> Any:
        first = batch[0]
        dense = first.layout is torch.strided and not first.is_nested and not first.is_quantized
        count = sum(one.numel() for one in batch) if dense and first.device.type == "cpu" else 0
        if count == 0:
            return torch_collate.collate_tensor_fn(batch)
        size = count * first.element_size()
        storage = self._storage(size) if size > INLINE_BYTES else None
        if storage is None:
            storage = torch.UntypedStorage(size)  # type: ignore[no-untyped-call]
        typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=first.dtype, _internal=True)  # type: ignore[no-untyped-call]
        out = first.new(typed).resize_(len(batch), *first.size())
        return torch.stack(batch, 0, out=out)


def private_stack() -> Stack:
    """For a collate_fn of the user's that calls default_collate: torch would take fresh shared
    memory; ours is private, used again, and copied to the slot when it leaves."""
    pool = _native.BufferPool(4)
    return Stack(lambda size: storage_over(pool.take(size).array([size], "uint8"), size))


def _into_slot(collate_fn: Any, station: Station) -> Any:
    """torch's default_collate replaced, also within our own functions around it."""
    if collate_fn is torch_collate.default_collate:
        return CollateIntoSlot(station)
    if isinstance(collate_fn, AroundCollate):
        collate_fn.collate = _into_slot(collate_fn.collate, station)
    return collate_fn


# Of what torch's worker loop takes: data set, collate_fn and worker_init_fn, which may refer to one
# another; index and result queue; whether minibatches are collated.
_DATASET, _INDICES, _RESULTS, _COLLATES, _COLLATE_FN, _INIT_FN = 1, 2, 3, 5, 6, 9
SHIPPED = (_DATASET, _COLLATE_FN, _INIT_FN)


def run(setup: Setup, loop: Callable[..., None], *passed: Any) -> None:
    """torch's `_worker_loop`, with our ends of its queues."""
    gc.freeze()  # what a fork inherited is not collected: to look at it is to copy its pages
    given = list(passed)
    if isinstance(given[_DATASET], Shipment):
        shipped = given[_DATASET].open(setup.consumer)
        for place, thing in zip(SHIPPED, shipped, strict=True):
            given[place] = thing
    station = Station(setup)
    beat = None if setup.berth is None else setup.berth.taken(setup.consumer)
    given[_COLLATE_FN] = _into_slot(given[_COLLATE_FN], station)
    stacked = torch_collate.default_collate_fn_map
    if stacked.get(torch.Tensor) is torch_collate.collate_tensor_fn:
        stacked[torch.Tensor] = private_stack()
    dataset = given[_DATASET]
    batches = getattr(dataset, "in_batches", None)  # our own views know it of the user's
    batches = getattr(dataset, "__getitems__", None) if batches is None else batches
    one_by_one = given[_COLLATES] and not batches
    given[_INDICES] = Indices(given[_INDICES], station, beat, one_by_one)
    given[_RESULTS] = Results(given[_RESULTS], station, setup.worker)
    loop(*given)
