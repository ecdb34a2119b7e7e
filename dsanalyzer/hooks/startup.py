"""Patches torch as soon as the job imports it, never before and never more than once."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_installed = False
_config: dict[str, Any] | None = None
_conductor: Any = None


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs a callback right after a module has executed."""

    def __init__(self, callbacks: dict[str, Callable[[ModuleType], None]]) -> None:
        self._callbacks = callbacks

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        callback = self._callbacks.get(name)
        if callback is None:
            return None
        spec = None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        if spec is None or spec.loader is None:
            return None
        del self._callbacks[name]
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            callback(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def read_config() -> dict[str, Any]:
    with open(os.path.join(os.environ["DSANALYZER_RUN"], "config.json")) as file:
        config: dict[str, Any] = json.load(file)
    return config


def conductor() -> Any:
    """The process's conductor, made at the first call; None outside a profile, and in children."""
    global _conductor
    if _config is None:
        return None
    if _conductor is None and _config["kind"] == "watch":
        from dsanalyzer.hooks.watching import Watcher

        _conductor = Watcher(_config)
    if _conductor is None:
        from dsanalyzer.hooks.conductor import Conductor

        _conductor = Conductor(_config)
    return _conductor if _conductor.pid == os.getpid() else None


def is_installed() -> bool:
    """Whether this process is observed."""
    return _config is not None


def install() -> None:
    """Called by the injected sitecustomize in every Python process of the job.

    What has been imported already is patched at once.
    """
    global _installed
    if _installed:
        return
    _installed = True
    try:
        config = read_config()
    except OSError:
        return  # the tool has ended; a process that outlives it runs as if never observed
    global _config
    _config = config
    from dsanalyzer.hooks import checkpoint, opens

    if config["kind"] != "watch":
        opens.install(config)
        checkpoint.install(config)

    def after_dataloader(module: ModuleType) -> None:
        from dsanalyzer.hooks import dataloader

        dataloader.patch(module, conductor())

    def after_optimizer(module: ModuleType) -> None:
        from dsanalyzer.hooks import training

        training.patch(module, config)

    def after_fetch(module: ModuleType) -> None:
        if config["kind"] == "watch":
            return
        from dsanalyzer.hooks import workers

        workers.patch(module, config)

    def after_filesystem(module: ModuleType) -> None:
        if config["kind"] == "watch":
            return
        from dsanalyzer.hooks import remote

        remote.patch(module, config)

    callbacks: dict[str, Callable[[ModuleType], None]] = {
        "fsspec.spec": after_filesystem,
        "torch.utils.data._utils.fetch": after_fetch,
        "torch.utils.data.dataloader": after_dataloader,
        "torch.optim.optimizer": after_optimizer,
        "torch.serialization": checkpoint.after_serialization,
        "safetensors.torch": checkpoint.after_safetensors,
    }
    for name in [name for name in callbacks if name in sys.modules]:
        callbacks.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport(callbacks))
