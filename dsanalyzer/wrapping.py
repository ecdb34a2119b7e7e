"""`dsanalyzer.wrap(iterable)`: lets the profiler see a loader that is no torch DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class Wrapped:
    """The iterable itself, but that each iteration can be observed while a profile runs.

    Attributes and `len` are the iterable's. Outside a profile iterating it costs one comparison.
    """

    # What a DataLoader would say of itself: prep happens somewhere inside.
    num_workers = 0
    prefetch_factor = None
    multiprocessing_context = None
    batch_size = None
    batch_sampler = None

    def __init__(self, iterable: Iterable[Any]) -> None:
        self.dataset = iterable

    def __iter__(self) -> Iterator[Any]:
        from dsanalyzer.hooks import startup

        conductor = startup.conductor()
        if conductor is None:
            return iter(self.dataset)
        from dsanalyzer.hooks.dataloader import Observed

        batches = conductor.observe(self, lambda: iter(self.dataset))
        return Observed(batches, lambda: len(self))

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "dataset"), name)


def wrap(iterable: Iterable[Any]) -> Wrapped:
    """An iterable of minibatches (DALI's iterators, your own) that `dsanalyzer profile` can see.

    The iterable must start anew each time it is iterated, in any order of samples, and read the
    same files each time.

        loader = dsanalyzer.wrap(DALIGenericIterator(...))

    Raises:
        TypeError: it is an iterator, which can be gone through only once, or no iterable at all.
    """
    once = isinstance(iterable, Iterator) and iter(iterable) is iterable
    if once and not hasattr(iterable, "reset"):
        raise TypeError(
            f"{type(iterable).__name__} can be iterated only once; wrap what makes it (an object "
            "whose __iter__ starts anew), so that the profile can go through it several times"
        )
    if not hasattr(iterable, "__iter__"):
        raise TypeError(f"{type(iterable).__name__} is not iterable")
    return Wrapped(iterable)
