"""Observes every iteration of every torch DataLoader, subclasses defined later included.

Outside a profile phase a loader works as ever. For a training loader the conductor decides where
the next minibatch comes from; which samples a pass reads is set by replacing the stream of index
batches that the loader's own workers consume, so dataset, transforms, collate, workers and
prefetching stay the job's own.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class IndexStream:
    """Stands for a loader's index sampler: the loader's own batches, or those of a pass."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self.batches: list[list[int]] | None = None
        self.asked = False  # since the flag was last cleared
        # Lengths of the loader's own index batches not yet delivered, where somebody counts them;
        # 0 of those that do not say.
        self.lengths: deque[int] | None = None

    def __iter__(self) -> Iterator[Any]:
        self.asked = True
        if self.batches is not None:
            return iter(self.batches)
        if self.lengths is None:
            return iter(self._own)
        self.lengths.clear()
        return map(self._counted, self._own)

    def _counted(self, batch: Any) -> Any:
        if self.lengths is not None:
            self.lengths.append(len(batch) if hasattr(batch, "__len__") else 0)
        return batch

    def __len__(self) -> int:
        return len(self._own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def stream_of(loader: Any) -> IndexStream:
    """The loader's index stream; one for its life, because persistent workers keep it."""
    stream = loader.__dict__.get("_dsanalyzer_stream")
    if stream is None:
        stream = IndexStream(type(loader)._dsanalyzer_own_sampler.fget(loader))
        object.__setattr__(loader, "_dsanalyzer_stream", stream)
    assert isinstance(stream, IndexStream)
    return stream


class Observed:
    """Iterator handed to the job; the minibatches themselves pass through untouched."""

    def __init__(self, batches: Iterator[Any], length: Callable[[], int]) -> None:
        self._batches = batches
        self._length = length

    def __iter__(self) -> Observed:
        return self

    def __next__(self) -> Any:
        return next(self._batches)

    def __len__(self) -> int:
        return self._length()


class _Opened:
    """The loader's own iterator. Where `__iter__` is a generator it calls super() only in here."""

    def __init__(self, batches: Iterator[Any], inside: Callable[[], Any]) -> None:
        self._batches = batches
        self._inside = inside

    def __iter__(self) -> _Opened:
        return self

    def __next__(self) -> Any:
        with self._inside():
            return next(self._batches)


def patch(module: ModuleType, conductor: Any) -> None:
    """`module` is torch.utils.data.dataloader."""
    base = module.DataLoader
    entered: set[int] = set()
    owner = os.getpid()

    @contextmanager
    def inside(loader: Any) -> Iterator[None]:
        entered.add(id(loader))
        try:
            yield
        finally:
            entered.discard(id(loader))

    def wrap(cls: type) -> None:
        original = cls.__dict__.get("__iter__")
        if original is None:
            return

        @functools.wraps(original)
        def __iter__(self: Any) -> Any:
            # A subclass that calls super().__iter__(), or a pass that opens the loader itself; and
            # a loader used inside a worker is none of ours.
            if id(self) in entered or os.getpid() != owner:
                return original(self)

            def open_loader() -> Iterator[Any]:
                with inside(self):
                    return _Opened(iter(original(self)), lambda: inside(self))

            return Observed(conductor.observe(self, open_loader), lambda: len(self))

        cls.__iter__ = __iter__  # type: ignore[attr-defined]

    def init_subclass(cls: Any, /, **kwargs: Any) -> None:
        super(base, cls).__init_subclass__(**kwargs)
        wrap(cls)

    base._dsanalyzer_own_sampler = base._index_sampler
    base._index_sampler = property(stream_of)
    base.__init_subclass__ = classmethod(init_subclass)
    known = [base]
    for cls in known:  # and its subclasses, where the hooks came later
        wrap(cls)
        known += [sub for sub in cls.__subclasses__() if sub not in known]
