"""A profiled job writes no checkpoint: what it would write goes to the run's own directory.

Diverted: torch.save, safetensors, and opens for writing, renames and copies onto files named like
checkpoints; reading such a file back gives what was written. Checkpoints that were there before
the job began are not removed either, alone or with their folder (jobs that keep the last three).
Writers in native code that name the file themselves are not seen.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import shutil
import time
from typing import Any

from dsanalyzer.hooks.wire import Connection

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".tar", ".bin", ".pkl", ".h5")

_directory = ""
_events: Connection | None = None
_diverted: dict[str, str] = {}
_began = time.time()


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
        setattr(os, name, _transfer(getattr(os, name), moves=True))
    shutil.move = _transfer(shutil.move, moves=True)
    for name in ("copyfile", "copy", "copy2"):
        setattr(shutil, name, _transfer(getattr(shutil, name), moves=False))
    os.remove = os.unlink = _removal(os.remove)
    shutil.rmtree = _removal(shutil.rmtree)  # type: ignore[assignment]


def _precious(path: str) -> bool:
    """A checkpoint, or a folder that holds one, from before the job began."""
    if os.path.isdir(path):
        return any(
            _precious(os.path.join(folder, name))
            for folder, _, names in os.walk(path)
            for name in names
        )
    try:
        return path.endswith(SUFFIXES) and os.stat(path).st_mtime < _began
    except OSError:
        return False


def _transfer(original: Any, *, moves: bool) -> Any:
    """Copies and moves from or onto checkpoints happen among the diverted files."""

    @functools.wraps(original)
    def transfer(src: Any, dst: Any, *args: Any, **kwargs: Any) -> Any:
        source, target = _absolute(src), _absolute(dst)
        if source is None or target is None or _inside(target):
            return original(src, dst, *args, **kwargs)
        if os.path.isdir(target) and original.__module__ == "shutil":
            target = os.path.join(target, os.path.basename(source))
        onto = target.endswith(SUFFIXES) and not os.path.isdir(source)
        if not (source in _diverted or onto or (moves and _precious(source))):
            return original(src, dst, *args, **kwargs)
        if os.path.isdir(source):
            return dst  # a folder of old checkpoints stays where it is
        with open(_there(source), "rb") as old, open(_divert(target), "wb") as new:
            shutil.copyfileobj(old, new)
        if moves and source in _diverted:
            os.remove(_diverted.pop(source))
        return dst

    return transfer


def _removal(original: Any) -> Any:
    """What was there before stays; a diverted file goes."""

    @functools.wraps(original)
    def remove(path: Any, *args: Any, **kwargs: Any) -> Any:
        # With dir_fd the path is relative to a folder only rmtree knows, and that was asked about.
        absolute = _absolute(path) if kwargs.get("dir_fd") is None else None
        if absolute in _diverted:
            return original(_diverted.pop(absolute))
        if absolute is not None and _precious(absolute):
            return None
        return original(path, *args, **kwargs)

    return remove


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
