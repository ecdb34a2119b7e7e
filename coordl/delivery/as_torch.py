"""One pass over a loader as torch does it: its own iterators, their yields counted and keyed."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

from coordl.delivery.history import EpochRecord, History
from coordl.staging.iterator import StagedWorkers


class _Counted:
    """Books what an iterator of torch's yields; hands keyed data sets their epoch."""

    _next_index: Callable[[], Any]
    _auto_collation: bool
    _finish: Any = None

    def __init__(self, view: Any, loader: Any, source: Any) -> None:
        """`view` is the loader over the data set to read; `source` counts reads here, or None."""
        self._source = source
        # Before torch's constructor: with workers it already asks for the first indices.
        self._begin(loader)
        super().__init__(view)  # type: ignore[call-arg]

    def _begin(self, loader: Any) -> None:
        self._record: EpochRecord
        self._history: History
        if self._finish is not None:  # the former pass of persistent workers
            self._finish()
        self._record, self._history, self._keyed = loader._python_epoch(self._source)
        self._finish = weakref.finalize(self, self._record.freeze)
        self._sizes: deque[int] = deque()

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        if not first_iter:
            self._begin(loader)
        super()._reset(loader, first_iter)  # type: ignore[misc]

    def __next__(self) -> Any:
        start = time.perf_counter()
        data = super().__next__()  # type: ignore[misc]
        size = self._sizes.popleft() if self._sizes else 0
        self._history.count(self._record, size, time.perf_counter() - start)
        return data


class PythonIterator(_Counted, _SingleProcessDataLoaderIter):
    """torch's iterator without workers."""

    def _next_index(self) -> Any:
        return _note(self, super()._next_index())


class PythonWorkersIterator(_Counted, StagedWorkers):
    """torch's iterator with worker processes, tensors coming in slots."""

    def _next_index(self) -> Any:
        return _note(self, super()._next_index())


def _note(iterator: Any, index: Any) -> Any:
    """Remembers the minibatch's size; adds the epoch for a keyed data set."""
    many = iterator._auto_collation
    iterator._sizes.append(len(index) if many else 1)
    if not iterator._keyed:
        return index
    epoch = iterator._record.epoch
    return [(epoch, one) for one in index] if many else (epoch, index)
