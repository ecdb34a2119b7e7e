"""Accelerate (and HF Trainer on it) and Ray Train build a plain torch DataLoader from a given one.

While they do so from one of ours, the name they call makes one of ours with the same extras. Only
the module's own name `DataLoader` is replaced, and only during these calls.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch.utils.data

_ACCELERATE = "accelerate.data_loader"
_REBUILDING = {
    _ACCELERATE: ("prepare_data_loader", "skip_first_batches"),
    "ray.train.v2.torch.train_loop_utils": ("prepare_data_loader",),
}
_lock = threading.RLock()


class _Rebuilt(type):
    """Metaclass of the stand-in for torch's class: calling it makes a coordl.DataLoader."""

    kind: Any
    extras: dict[str, Any]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.kind(*args, **{**cls.extras, **kwargs})

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, torch.utils.data.DataLoader)


def keep_when_rebuilt(kind: Any) -> None:
    """Has these modules rebuild loaders of this class as such, now or once they are imported."""
    for name in _REBUILDING:
        module = sys.modules.get(name)
        if module is not None:
            _patch(module, kind)
        elif all(finder.name != name for finder in _finders()):
            sys.meta_path.insert(0, _WhenImported(name, kind))


def _finders() -> list[_WhenImported]:
    return [finder for finder in sys.meta_path if isinstance(finder, _WhenImported)]


def _patch(module: ModuleType, kind: Any) -> None:
    if module.__name__ == _ACCELERATE and not hasattr(module, "DataLoaderAdapter"):
        return  # before 0.34 its classes inherit from torch's
    for name in _REBUILDING[module.__name__]:
        theirs = getattr(module, name)
        ours = _rebuilding(theirs, module, kind)
        for holder in list(sys.modules.values()):  # others have imported the function by name
            if getattr(holder, "__dict__", {}).get(name) is theirs:
                setattr(holder, name, ours)


def _rebuilding(function: Callable[..., Any], module: Any, kind: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    def rebuild(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(dataloader, kind):
            return function(dataloader, *args, **kwargs)
        extras = {name: getattr(dataloader, name) for name in _extras(kind)}
        stand_in = _Rebuilt("DataLoader", (), {"kind": kind, "extras": extras})
        with _lock:
            torchs, module.DataLoader = module.DataLoader, stand_in
            try:
                return function(dataloader, *args, **kwargs)
            finally:
                module.DataLoader = torchs

    return rebuild


def _extras(kind: Any) -> list[str]:
    torchs = inspect.signature(torch.utils.data.DataLoader).parameters
    return [name for name in inspect.signature(kind).parameters if name not in torchs]


class _WhenImported(importlib.abc.MetaPathFinder):
    """Patches the module right after it has run."""

    def __init__(self, name: str, kind: Any) -> None:
        self.name, self.kind = name, kind

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            _patch(module, self.kind)

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec
