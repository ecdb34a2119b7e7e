"""Fills a cache ahead of training: many threads read each item once, as long as there is room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordl.errors import ItemError
from coordl.fetch.cache import MinIOCache
from coordl.fetch.folder import find_folder
from coordl.fetch.source import FolderItems
from coordl.fetch.storage import fetch

# Packing takes this much of the files' bytes on average; with that room, everything is packed.
_PACKED_GROWTH = 1.37


@dataclass(frozen=True)
class Warmed:
    """What warm() did.

    Attributes:
        items: of the data set.
        held: of them, in the cache now.
        read_bytes: read from storage.
        failed: one error for each item that could not be read; training will raise the same.
    """

    items: int
    held: int
    read_bytes: int
    failed: tuple[ItemError, ...]


class Warming:
    """A cache, opened for a data set, and what there is to bring into it.

    Args:
        cache: opened by the data set's name unless it is open.
        dataset: what a DataLoader would get: one of the data sets coordl knows, or a Subset.

    Raises:
        ValueError: it is no such data set; says why.
    """

    def __init__(self, cache: MinIOCache, dataset: Any) -> None:
        folder = find_folder(dataset)
        if isinstance(folder, str):
            raise ValueError(f"this data set cannot be warmed: {folder}")
        self.cache = cache
        self.items = FolderItems.of(folder.source(), True, None).items
        cache.serve(folder.cache_name, self.items)
        rows = np.arange(len(folder.dataset)) if folder.rows is None else np.unique(folder.rows)
        starts = len(folder.dataset) * np.arange(self.items.fields)
        rows = (rows[:, None] + starts).ravel()  # sample by sample, as their bytes lie
        self.rows: list[int] = rows.tolist()
        self.total_bytes = int(self.items.sizes[self.rows].sum())
        self.form = cache.form
        if self.form == "auto":  # nothing was measured yet: as the loader decides then
            room = cache.total_budget_bytes >= _PACKED_GROWTH * self.items.total_bytes
            self.form = "packed" if room else "original"
        self._ended = threading.Semaphore(0)  # one for each thread that is through
        self._lock = threading.Lock()  # guards all below
        self._left = iter(self.rows)
        self._stopped = False
        self._read_bytes = 0
        self._failed: list[ItemError] = []
        self._raised: BaseException | None = None

    def run(self, workers: int, tell: Callable[[int, int], None]) -> Warmed:
        """Until all is done. On Ctrl-C what is in hand is finished, and what is in the cache stays.

        Args:
            workers: threads that read and rewrite.
            tell: called with items and bytes done since it was last called, from any thread.
        """
        if workers < 1:
            raise ValueError(f"workers={workers}: warming takes at least one thread")
        threads = [threading.Thread(target=self._work, args=(tell,)) for _ in range(workers)]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:  # no join(): one that Ctrl-C breaks into takes its thread for ended
                self._ended.acquire()
        finally:
            with self._lock:
                self._stopped = True
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._raised is not None:
            raise self._raised
        self.cache.warn_of_troubles()
        held = sum(1 for row in self.rows if self.cache.holds(self.items.keys[row]))
        failed = tuple(sorted(self._failed, key=lambda error: error.index))
        return Warmed(len(self.rows), held, self._read_bytes, failed)

    def _work(self, tell: Callable[[int, int], None]) -> None:
        try:
            while (row := self._next()) is not None:
                size = int(self.items.sizes[row])
                self._bring(row, size)
                tell(1, size)
        except BaseException as error:  # of tell(), or no memory: for who called run()
            with self._lock:
                self._raised, self._stopped = error, True
        finally:
            self._ended.release()

    def _next(self) -> int | None:
        with self._lock:
            return None if self._stopped else next(self._left, None)

    def _bring(self, row: int, size: int) -> None:
        key = self.items.keys[row]
        if self.cache.holds(key) or not self.cache.takes(key, size):
            return
        try:
            data = fetch(self.items, row, self.cache, self.form)
        except ItemError as error:
            with self._lock:
                self._failed.append(error)
            return
        with self._lock:
            self._read_bytes += len(data)
