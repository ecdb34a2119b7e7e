"""What a minibatch lacks, read from remote storage many at a time, so that one wait is enough."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Calls `read` in threads; whoever asks for a row next waits for its call alone.

    One minibatch at a time, by one thread. Its threads are this process's own: a forked or spawned
    one starts others when it first needs them. They end with this object, or with the process.

    Args:
        threads: reads at a time.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._coming: dict[int, Future[T]] = {}

    @contextmanager
    def of(self, rows: list[int], read: Callable[[int], T]) -> Iterator[None]:
        """Inside, these rows are on their way; what nobody took is dropped at the end."""
        if len(rows) < 2:  # nothing to wait for together
            yield
            return
        pool = self._threads_here()
        self._coming = {row: pool.submit(read, row) for row in dict.fromkeys(rows)}
        try:
            yield
        finally:
            for future in self._coming.values():
                future.cancel()
            self._coming = {}

    def take(self, row: int) -> Future[T] | None:
        """The call for a row, once; None where there is none."""
        return self._coming.pop(row, None)

    def _threads_here(self) -> ThreadPoolExecutor:
        pid = os.getpid()
        if self._pool is None or self._pool[0] != pid:
            pool = ThreadPoolExecutor(self.threads, "coordl-ahead")
            weakref.finalize(self, _end, pool, pid)
            self._pool = pid, pool
        return self._pool[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadAhead, (self.threads,)


def _end(pool: ThreadPoolExecutor, pid: int) -> None:
    if os.getpid() == pid:  # a fork inherits the object and none of its threads
        pool.shutdown(wait=False, cancel_futures=True)
