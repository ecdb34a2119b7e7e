"""Accelerate (and HF Trainer on it) builds a plain torch DataLoader from the one it is given.

While it does so from one of ours, the name it calls makes one of ours with the same extras. Only
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

_MODULE = "accelerate.data_loader"
_REBUILDING = ("prepare_data_loader", "skip_first_batches")
_lock = threading.RLock()


class _Rebuilt(type):
    """Metaclass of the stand-in for torch's class: calling it makes a coordl.DataLoader."""

    kind: Any
    extras: dict[str, Any]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.kind(*args, **{**cls.extras, **kwargs})

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, torch.utils.data.DataLoader)


def keep_acceleration(kind: Any) -> None:
    """Has Accelerate rebuild loaders of this class as such, now or once it is imported."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _patch(module, kind)
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported(kind))


def _patch(module: ModuleType, kind: Any) -> None:
    if not hasattr(module, "DataLoaderAdapter"):  # before 0.34 its classes inherit from torch's
        return
    for name in _REBUILDING:
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

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODULE:
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
