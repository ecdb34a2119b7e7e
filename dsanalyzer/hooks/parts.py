"""Which part of preparing a sample takes how long, where the data set shows its parts.

torchvision's data sets, and those made alike, have a `loader` that opens and decodes a file, and
transforms. In a worker, whose data set nobody else has, they are wrapped so as to be timed; of
torchvision's Compose each transform by itself. A loader's time off its core is mostly reading.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

Taken = dict[str, list[float]]  # by name: seconds, and those of them on a core
_OWN = ("_called", "_name", "_taken")
_ATTRIBUTES = ("loader", "transform", "transforms")


class Timed:
    """A callable that adds to what its name has taken; in everything else it is what it wraps."""

    def __init__(self, called: Callable[..., Any], name: str, taken: Taken) -> None:
        self._called = called
        self._name = name
        self._taken = taken

    def __call__(self, *args: Any, **named: Any) -> Any:
        begin, on_core = time.perf_counter(), time.thread_time()
        try:
            return self._called(*args, **named)
        finally:
            taken = self._taken.setdefault(self._name, [0.0, 0.0])
            taken[0] += time.perf_counter() - begin
            taken[1] += time.thread_time() - on_core

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_called"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._called, name, value)


class Parts:
    """The parts of one worker's data set, from now on timed."""

    def __init__(self, dataset: Any) -> None:
        self._taken: Taken = {}
        self._seen: set[int] = set()
        self._wrap(dataset)

    def _wrap(self, dataset: Any) -> None:
        if id(dataset) in self._seen:
            return
        self._seen.add(id(dataset))
        own = getattr(dataset, "__dict__", {})
        several = own.get("datasets")  # of a ConcatDataset; `dataset` is a Subset's
        for inner in [own.get("dataset"), *(several if isinstance(several, list | tuple) else ())]:
            self._wrap(inner)
        for attribute in _ATTRIBUTES:
            called: Any = own.get(attribute)
            if _is_called_only(called):
                own[attribute] = self._timed(called, attribute)

    def _timed(self, called: Callable[..., Any], attribute: str) -> Callable[..., Any]:
        """Of a Compose a copy whose transforms are timed; of anything else itself."""
        inside = getattr(called, "transforms", None)
        theirs = type(called).__module__.startswith("torchvision.transforms")
        if theirs and type(called).__name__ == "Compose" and isinstance(inside, list | tuple):
            timed = copy.copy(called)
            timed.transforms = [  # type: ignore[attr-defined]
                self._timed(one, attribute) if _is_called_only(one) else one for one in inside
            ]
            return timed
        return Timed(called, _name_of(called, attribute), self._taken)

    def take(self) -> Taken:
        """What each has taken since the last call."""
        taken = dict(self._taken)
        self._taken.clear()
        return taken


def _is_called_only(called: Any) -> bool:
    """Not what a data set may also iterate or index, as a ModuleList of transforms."""
    kind = type(called)
    used_otherwise = any(hasattr(kind, name) for name in ("__iter__", "__getitem__", "__len__"))
    return callable(called) and not used_otherwise and not isinstance(called, type | Timed)


def _name_of(called: Callable[..., Any], attribute: str) -> str:
    if attribute == "loader":
        return "loader"
    return str(getattr(called, "__name__", type(called).__name__))
