"""A profiled job writes no checkpoint: what it would write goes to the run's own directory.

Diverted: torch.save, safetensors, opens for writing of files named like checkpoints, and later
renames or copies of a diverted file; reading a diverted file back gives what was written. Writers
in native code that name the file themselves are not seen.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import shutil
from typing import Any

from dsanalyzer.hooks.wire import Connection

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".tar", ".bin", ".pkl", ".h5")

_directory = ""
_events: Connection | None = None
_diverted: dict[str, str] = {}


def _absolute(path: Any) -> str | None:
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    return os.path.abspath(os.fsdecode(path))


def _divert(path: str) -> str:
    """Where the job's write to `path` goes instead; the tool is told once per path."""
    path = os.path.abspath(path)
    if path not in _diverted:
        _diverted[path] = os.path.join(
            _directory, f"{os.getpid()}-{len(_diverted)}-{os.path.basename(path)}"
        )
        if _events is not None:
            _events.event({"op": "diverted", "path": path})
    return _diverted[path]


def _there(path: Any) -> Any:
    """Where `path` really is: its diverted copy when the job wrote one."""
    absolute = _absolute(path)
    return _diverted.get(absolute, path) if absolute is not None else path


def _inside(path: str) -> bool:
    return path.startswith(os.path.dirname(_directory) + os.sep)


def install(config: dict[str, Any]) -> None:
    global _directory, _events
    if not config["divert"]:
        return
    _directory = config["divert_dir"]
    _events = Connection(config["socket"], "events")
    original = builtins.open

    @functools.wraps(original)
    def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        path = _absolute(file)
        if path is None or _inside(path):
            return original(file, mode, *args, **kwargs)
        if any(c in mode for c in "wxa+") and path.endswith(SUFFIXES):
            if "x" in mode and os.path.exists(path):
                raise FileExistsError(17, "File exists", path)
            return original(_divert(path), mode, *args, **kwargs)
        return original(_there(file), mode, *args, **kwargs)

    builtins.open = io.open = open_  # type: ignore[assignment]
    for name in ("replace", "rename"):
        setattr(os, name, _moving(getattr(os, name)))
    for name in ("copyfile", "copy", "copy2", "move"):
        setattr(shutil, name, _moving(getattr(shutil, name)))


def _moving(original: Any) -> Any:
    @functools.wraps(original)
    def move(src: Any, dst: Any, *args: Any, **kwargs: Any) -> Any:
        source = _absolute(src)
        target = _absolute(dst)
        if source not in _diverted or target is None:
            return original(src, dst, *args, **kwargs)
        if os.path.isdir(target):
            target = os.path.join(target, os.path.basename(source))
        original(_diverted[source], _divert(target), *args, **kwargs)
        if original.__name__ in ("replace", "rename", "move"):
            del _diverted[source]
        return dst

    return move


def after_serialization(module: Any) -> None:
    """`module` is torch.serialization."""
    if not _directory:
        return
    save, load = module.save, module.load

    @functools.wraps(save)
    def diverted_save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        path = _absolute(f)
        return save(obj, f if path is None else _divert(path), *args, **kwargs)

    @functools.wraps(load)
    def diverted_load(f: Any, *args: Any, **kwargs: Any) -> Any:
        return load(_there(f), *args, **kwargs)

    diverted_save._dsanalyzer_original = save  # type: ignore[attr-defined]
    module.save, module.load = diverted_save, diverted_load


def after_safetensors(module: Any) -> None:
    """`module` is safetensors.torch."""
    if not _directory:
        return
    save_file = module.save_file

    @functools.wraps(save_file)
    def diverted_save_file(tensors: Any, filename: Any, *args: Any, **kwargs: Any) -> Any:
        return save_file(tensors, _divert(os.fsdecode(filename)), *args, **kwargs)

    module.save_file = diverted_save_file
