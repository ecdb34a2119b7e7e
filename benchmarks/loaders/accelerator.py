"""An accelerator that takes so many samples a second, and no more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any


def paced(loader: Iterable[Any], rate: float) -> Iterator[Any]:
    """The first part of each minibatch, taken at deadlines of `rate` samples/s; 0: as they come.

    A step begins when the one before it ended, or when its minibatch came, whichever is later.
    """
    due = time.perf_counter()
    for images, *_ in loader:
        yield images
        if rate:
            due = max(due, time.perf_counter() - len(images) / rate) + len(images) / rate
            time.sleep(max(0.0, due - time.perf_counter()))
