"""A profiled job changes nothing that was there before it: its writes go to the run's directory.

Diverted: torch.save, safetensors, and every open for writing of a file that is named like a
checkpoint or that existed when the run began. Such files are not removed, renamed or replaced
(the job believes they were), alone or with their folder: jobs that keep the last three keep all.
Reading a diverted file back, in any process of the job, gives what was written. Writers in native
code that name the file themselves are not seen.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import hashlib
import io
import os
import shutil
import stat
from typing import Any

from dsanalyzer.hooks.wire import Connection

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".tar", ".bin", ".pkl", ".h5")

_directory = ""
_started_ns = 0
_events: Connection | None = None
_told: set[str] = set()
_removed: set[str] = set()  # the job thinks these are gone: they were there before it, and stay


def _absolute(path: Any) -> str | None:
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    return os.path.abspath(os.fsdecode(path))


def _copy_of(path: str) -> str:
    """Where a write to `path` goes: the same in every process of the job."""
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return os.path.join(_directory, f"{digest}-{os.path.basename(path)}")


def _divert(path: str) -> str:
    """Where the job's write to `path` goes instead; the tool is told once per path."""
    path = os.path.abspath(path)
    _removed.discard(path)
    if path not in _told:
        _told.add(path)
        if _events is not None:
            _events.event({"op": "diverted", "path": path})
    return _copy_of(path)


def _there(path: Any) -> Any:
    """Where `path` really is: its diverted copy when the job wrote one."""
    absolute = _absolute(path)
    if absolute is None or _inside(absolute):
        return path
    copy = _copy_of(absolute)
    return copy if os.path.lexists(copy) else path


def _inside(path: str) -> bool:
    return path.startswith(os.path.dirname(_directory) + os.sep)


def _precious(path: str) -> bool:
    """There before the job began, so not the job's to change while it is profiled."""
    try:
        info = os.lstat(path)
    except OSError:
        return False
    plain = stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode) or stat.S_ISDIR(info.st_mode)
    return plain and info.st_ctime_ns <= _started_ns


def _writes_go_aside(path: str) -> bool:
    return path.endswith(SUFFIXES) or _precious(path)


def install(config: dict[str, Any]) -> None:
    global _directory, _events, _started_ns
    if not config["divert"]:
        return
    _directory = config["divert_dir"]
    _started_ns = config["started_ns"]
    _events = Connection(config["socket"], "events")
    original = builtins.open

    @functools.wraps(original)
    def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        path = _absolute(file)
        if path is None or _inside(path):
            return original(file, mode, *args, **kwargs)
        if any(c in mode for c in "wxa+") and _writes_go_aside(path):
            gone = path in _removed
            if "x" in mode and not gone and os.path.exists(path):
                raise FileExistsError(17, "File exists", path)
            copy = _divert(path)
            if any(c in mode for c in "ra") and not os.path.exists(copy) and not gone:
                with contextlib.suppress(FileNotFoundError):  # "a" may begin a new file
                    shutil.copyfile(path, copy)
            return original(copy, mode, *args, **kwargs)
        return original(_there(file), mode, *args, **kwargs)

    builtins.open = io.open = open_  # type: ignore[assignment]
    os.open = _opening(os.open)
    os.stat = _found(os.stat)
    os.mkdir = _again(os.mkdir)
    os.symlink = _linking(os.symlink)
    os.link = _linking(os.link)
    for name in ("remove", "unlink", "rmdir"):
        setattr(os, name, _removing(getattr(os, name)))
    shutil.rmtree = _removing(shutil.rmtree)
    for name in ("replace", "rename"):
        setattr(os, name, _moving(getattr(os, name)))
    for name in ("copyfile", "copy", "copy2", "move"):
        setattr(shutil, name, _moving(getattr(shutil, name)))


def _opening(original: Any) -> Any:
    @functools.wraps(original)
    def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> Any:
        absolute = _absolute(path)
        if absolute is None or kwargs.get("dir_fd") is not None or _inside(absolute):
            return original(path, flags, *args, **kwargs)
        if flags & (os.O_WRONLY | os.O_RDWR) and _writes_go_aside(absolute):
            return original(_divert(absolute), flags | os.O_CREAT, *args, **kwargs)
        return original(_there(path), flags, *args, **kwargs)

    return open_


def _found(original: Any) -> Any:
    @functools.wraps(original)
    def stat_(path: Any, *args: Any, **kwargs: Any) -> Any:
        absolute = _absolute(path)
        if absolute is None or kwargs.get("dir_fd") is not None:
            return original(path, *args, **kwargs)
        if absolute in _removed:
            raise FileNotFoundError(2, "No such file or directory", absolute)
        return original(_there(path), *args, **kwargs)

    return stat_


def _again(original: Any) -> Any:
    @functools.wraps(original)
    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        absolute = _absolute(path)
        if absolute in _removed:
            _removed.discard(absolute)
            return
        original(path, *args, **kwargs)

    return mkdir


def _linking(original: Any) -> Any:
    @functools.wraps(original)
    def link(src: Any, dst: Any, *args: Any, **kwargs: Any) -> None:
        target = _absolute(dst)
        if target in _removed:
            _divert(target)  # the old link stays what it was
            return
        original(src, dst, *args, **kwargs)

    return link


def _removing(original: Any) -> Any:
    @functools.wraps(original)
    def remove(path: Any, *args: Any, **kwargs: Any) -> Any:
        absolute = _absolute(path)
        if absolute is None or kwargs.get("dir_fd") is not None or _inside(absolute):
            return original(path, *args, **kwargs)
        copy = _copy_of(absolute)
        diverted = os.path.lexists(copy)
        if diverted:
            real_folder = os.path.isdir(copy) and not os.path.islink(copy)
            (shutil.rmtree if real_folder else os.unlink)(copy)
        if _precious(absolute):
            _divert(absolute)
            _removed.add(absolute)
            return None
        return None if diverted else original(path, *args, **kwargs)

    return remove


def _moving(original: Any) -> Any:
    @functools.wraps(original)
    def move(src: Any, dst: Any, *args: Any, **kwargs: Any) -> Any:
        source, target = _absolute(src), _absolute(dst)
        if source is None or target is None or _inside(target):
            return original(src, dst, *args, **kwargs)
        if os.path.isdir(target) and original.__name__ not in ("replace", "rename"):
            target = os.path.join(target, os.path.basename(source))
        copy = _copy_of(source)
        diverted = os.path.lexists(copy)
        if not (diverted or _precious(target) or target in _removed or _takes(original, source)):
            return original(src, dst, *args, **kwargs)
        moves = original.__name__ in ("replace", "rename", "move")
        if moves and _precious(source) and not diverted:
            if os.path.isfile(source):
                shutil.copyfile(source, _divert(target))
            _divert(source)
            _removed.add(source)
        elif moves:
            os.replace(copy if diverted else source, _divert(target))
        else:
            original(copy if diverted else source, _divert(target), *args, **kwargs)
        return dst

    return move


def _takes(original: Any, source: str) -> bool:
    return original.__name__ in ("replace", "rename", "move") and _precious(source)


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
