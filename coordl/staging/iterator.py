"""torch's iterator with worker processes; how minibatches get from them to us is ours."""

from __future__ import annotations

import os
import time
from typing import Any

import torch.multiprocessing
from torch.utils.data._utils.worker import _IterableDatasetStopIteration
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from coordl.staging import watch
from coordl.staging.flight import Flight
from coordl.staging.parcel import Parcel
from coordl.staging.ship import Shipment, ship
from coordl.staging.slots import SlotPool
from coordl.staging.view import view_of
from coordl.staging.worker import SHIPPED, Setup, run
from coordl.user_warning import warn_user

# Slots kept beside those of minibatches on their way: the one in the loop's hands, the one it gets
# next, and two for loops that look ahead.
_BESIDE = 4
_LOOK_S = 0.5  # a dead worker is noticed in this time where no signal says so (other threads)
_CONTEXT = "_DataLoader__multiprocessing_context"


class _IndexQueue:
    """The consumer's end of a worker's index queue: names a slot with every task."""

    def __init__(self, queue: Any, worker: int, flight: Flight) -> None:
        self.queue, self._worker, self._flight = queue, worker, flight

    def put(self, item: Any) -> None:
        if type(item) is tuple:
            task, index = item
            item = (task, index, *self._flight.send(task, self._worker, index))
        self.queue.put(item)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queue, name)


class _Context:
    """A multiprocessing context whose processes run our worker around torch's."""

    def __init__(self, context: Any, flight: Flight, watched: watch.Watch) -> None:
        self._context, self._flight, self._watch = context, flight, watched
        self._queues = 0
        self._shipment: Shipment | None = None
        self._fd = -1

    def Queue(self) -> Any:
        """The results' first, then a worker's indices."""
        queue = self._context.Queue()
        self._queues += 1
        worker = self._queues - 2
        return queue if worker < 0 else _IndexQueue(queue, worker, self._flight)

    def Process(self, *, target: Any, args: tuple) -> Any:
        worker = self._queues - 2
        setup = Setup(os.getpid(), self._flight.number, worker, self._watch.berth(worker))
        passed = [a.queue if isinstance(a, _IndexQueue) else a for a in args]
        if worker == 0 and self._context.get_start_method() != "fork":
            shipped = ship(tuple(passed[place] for place in SHIPPED))
            if shipped is not None:
                self._shipment, self._fd = shipped
        if self._shipment is not None:
            for place in SHIPPED:
                passed[place] = self._shipment
        return self._context.Process(target=run, args=(setup, target, *passed))

    def close(self) -> None:
        """When no worker will begin any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class StagedWorkers(_MultiProcessingDataLoaderIter):
    """As its base, but that tensors come in slots, and that a worker's end or hang is explained."""

    def __init__(self, loader: Any) -> None:
        local = loader._local
        if local.slots is None:
            local.slots = SlotPool()
        pool: SlotPool = local.slots
        pool.limit = loader.num_workers * max(1, loader.prefetch_factor or 2) + _BESIDE
        self._flight = Flight(pool, loader.num_workers)
        self._watch = watch.Watch(loader.dataset, loader.num_workers)
        self._waits_since: float | None = None
        self._warned = False
        context = loader.multiprocessing_context or torch.multiprocessing
        self._context = _Context(context, self._flight, self._watch)
        view = view_of(loader)
        view.__dict__[_CONTEXT] = self._context
        super().__init__(view)

    def _try_get_data(self, timeout: float = 5.0) -> tuple[bool, Any]:
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            came, data = super()._try_get_data(max(0.0, min(_LOOK_S, left)))  # type: ignore[no-untyped-call]
            if came:
                self._waits_since, self._warned = None, False
                return True, self._received(*data)
            now = time.monotonic()
            if self._waits_since is None:
                self._waits_since = now
            if now - self._waits_since > watch.STALL_S and not self._warned:
                self._warned = True
                warn_user(
                    f"no minibatch for {now - self._waits_since:.0f} s: {self._stalled()}\n"
                    "(timeout= makes this an error.)"
                )
            if left <= 0:
                return False, None

    def _received(self, task: Any, data: Any) -> tuple[Any, Any]:
        if isinstance(data, Parcel):
            data = data.open()
        elif isinstance(data, _IterableDatasetStopIteration):
            self._flight.ended(data.worker_id)
        self._flight.answered(task)  # where that was no parcel, or one for the pinning thread
        return task, data

    def _next_data(self) -> Any:
        try:
            return super()._next_data()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            said = str(error)
            if said.startswith("DataLoader worker (pid"):
                error.args = (": ".join([said.rstrip(), " ".join(self._deaths())]),)
            elif said.startswith("DataLoader timed out after"):
                error.args = (f"{said}: {self._stalled()}",)
            raise

    def _stalled(self) -> str:
        """Of the worker whose minibatch is next, or of all where any will do."""
        next_one = self._task_info.get(self._rcvd_idx)
        ids = [next_one[0]] if next_one and self._in_order else range(len(self._workers))
        sent = self._flight.indices()
        return "\n".join(self._watch.stall(i, self._workers[i].pid or 0, sent) for i in ids)

    def _deaths(self) -> list[str]:
        sent = self._flight.indices()
        return [
            self._watch.death(number, worker.pid or 0, worker.exitcode, sent)
            for number, worker in enumerate(self._workers)
            if worker.exitcode
        ]

    def _shutdown_workers(self) -> None:
        super()._shutdown_workers()  # type: ignore[no-untyped-call]
        if getattr(self, "_shutdown", False):
            self._flight.close(all(worker.exitcode is not None for worker in self._workers))
            self._watch.close()
            self._context.close()
