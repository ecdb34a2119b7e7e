"""Counters that worker processes and their parent share: each process adds to a row of its own.

One writer per row, so there is nothing to lock and nothing a killed worker could leave half done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.utils.data

_lock = threading.Lock()  # among the threads of a process


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_renew_lock)


class Tally:
    """Counts of the names given, summed over this process and the workers of one loader.

    Pickles to worker processes share the memory; anything else would count for itself.
    """

    def __init__(self, names: tuple[str, ...], workers: int) -> None:
        self.names = names
        table: Any = torch.zeros((workers + 1, len(names)), dtype=torch.int64)
        self._table: torch.Tensor = table.share_memory_()

    def add(self, name: str, count: int) -> None:
        info = torch.utils.data.get_worker_info()
        row = 0 if info is None else info.id + 1
        with _lock:
            self._table.numpy()[row, self.names.index(name)] += count

    def since_now(self) -> Callable[[], dict[str, int]]:
        """What gives the counts since this call."""
        before = self.totals()
        return lambda: {name: count - before[name] for name, count in self.totals().items()}

    def totals(self) -> dict[str, int]:
        sums: Any = self._table.numpy().sum(axis=0, dtype=np.int64)
        return dict(zip(self.names, sums.tolist(), strict=True))
