"""Reads of objects through fsspec: told to the tool, and served from memory where it says so.

While the tool looks for what samples are read from, every whole object that is read is kept
(measure/objects.py). Later one of those is found in memory where it is marked as being there, and
read as the job reads it where not. Whole reads are seen: `open(...)` and `cat_file(...)`, and what
is built on them. Parts of an object (`start`, `end`), reads with arguments of their own (a version,
headers) and questions about an object (`info`, `exists`) go where they always went.
"""

from __future__ import annotations

import os
import threading
from types import ModuleType
from typing import Any

from fsspec.spec import AbstractBufferedFile

from dsanalyzer.hooks import opens
from dsanalyzer.measure import objects, residency

# Not of a network, or made of another file system that is seen itself.
_NOT_REMOTE = frozenset(
    (
        *("file", "local", "memory", "data", "dir", "zip", "tar", "libarchive", "reference"),
        *("generic", "cached", "blockcache", "filecache", "simplecache", "coordl", "git"),
        *("asyncwrapper", "async_wrapper", "chained"),
    )
)
_OF_BUFFERING = frozenset(("block_size", "autocommit", "cache_type", "cache_options", "size"))
LARGEST = 256 << 20  # bytes: above, an object is a shard of many samples


class Kept(AbstractBufferedFile):  # type: ignore[misc]
    """An object in memory, opened."""

    def __init__(self, filesystem: Any, path: str, kept: str) -> None:
        with opens.unseen(), open(kept, "rb") as file:
            self._content = file.read()
        super().__init__(filesystem, path, size=len(self._content))

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._content[start:end]


class _Inside(threading.local):
    """Whether this thread is in a read that is seen: what that is built on is part of it."""

    now = False

    def __enter__(self) -> None:
        self.now = True

    def __exit__(self, *_: object) -> None:
        self.now = False


class Reads:
    """What is done with reads of file systems of this process."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._inside = _Inside()

    def see(self, filesystem: Any) -> None:
        """From now on; at most once."""
        protocols = filesystem.protocol
        named = {protocols} if isinstance(protocols, str) else set(protocols)
        if named & _NOT_REMOTE or vars(filesystem).get("_dsanalyzer"):
            return
        filesystem._dsanalyzer = True
        if "cat_file" in vars(filesystem):  # made of the coroutine by fsspec
            self._see_coroutine(filesystem)
        else:
            self._see_cat(filesystem)
        self._see_open(filesystem)

    def _see_cat(self, filesystem: Any) -> None:
        cat_file = filesystem.cat_file

        def watched(path: str, *args: Any, **kwargs: Any) -> Any:
            if self._inside.now:
                return cat_file(path, *args, **kwargs)
            with self._inside:
                if not _is_whole(args, kwargs):
                    return cat_file(path, *args, **kwargs)
                if (kept := self._kept(filesystem, path)) is not None:
                    return _content(kept)
                data = cat_file(path)
                self._came(filesystem, path, data)
                return data

        filesystem.cat_file = watched

    def _see_coroutine(self, filesystem: Any) -> None:
        from fsspec.asyn import sync_wrapper

        cat_file = filesystem._cat_file

        async def watched(path: str, *args: Any, **kwargs: Any) -> Any:
            if not _is_whole(args, kwargs):
                return await cat_file(path, *args, **kwargs)
            if (kept := self._kept(filesystem, path)) is not None:
                return _content(kept)
            data = await cat_file(path)
            self._came(filesystem, path, data)
            return data

        filesystem._cat_file = watched
        filesystem.cat_file = sync_wrapper(watched, obj=filesystem)

    def _see_open(self, filesystem: Any) -> None:
        open_object = filesystem._open

        def watched(path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
            if self._inside.now or mode != "rb" or not _OF_BUFFERING.issuperset(kwargs):
                return open_object(path, mode, *args, **kwargs)
            kept = self._kept(filesystem, path) or self._whole(filesystem, path)
            if kept is not None:
                return Kept(filesystem, path, kept)
            with self._inside:
                return open_object(path, mode, *args, **kwargs)

        filesystem._open = watched

    def _kept(self, filesystem: Any, path: str) -> str | None:
        """The object's file, where the job is to find it in memory; the tool is told either way."""
        try:
            kept = self._path(filesystem, path)
            if not os.path.exists(kept):
                return None
            found = objects.in_memory(kept)
            opens.tell(kept, 0 if found else residency.device_bytes(os.path.getsize(kept)))
            return kept if found else None
        except Exception:  # of the tool; the job reads as ever
            return None

    def _came(self, filesystem: Any, path: str, data: Any) -> None:
        """The object was read whole."""
        try:
            if not objects.is_keeping(self._folder):
                return
            kept = self._path(filesystem, path)
            if os.path.exists(kept):
                return
            with opens.unseen():
                stripped = _stripped(filesystem, path)
                if len(data) > LARGEST or not objects.keep(kept, data, filesystem, stripped):
                    objects.refuse(self._folder)
                    return
            opens.tell(kept, residency.device_bytes(len(data)))
        except Exception:
            return

    def _whole(self, filesystem: Any, path: str) -> str | None:
        """The file of an object that is opened while objects are kept."""
        if not objects.is_keeping(self._folder):
            return None
        try:
            kept = self._path(filesystem, path)
            if os.path.exists(kept):
                return kept
            if 0 < (filesystem.size(path) or 0) <= LARGEST:
                filesystem.cat_file(path)
            else:
                objects.refuse(self._folder)
            return kept if os.path.exists(kept) else None
        except Exception:  # whatever it is, opening it will say so to the job
            return None

    def _path(self, filesystem: Any, path: str) -> str:
        return objects.kept_path(self._folder, filesystem, _stripped(filesystem, path))


def _is_whole(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a read of an object has no arguments that say more: a part of it, a version."""
    return not args and all(
        name in ("start", "end") and value is None for name, value in kwargs.items()
    )


def _stripped(filesystem: Any, path: str) -> str:
    return str(filesystem._strip_protocol(path))


def _content(kept: str) -> bytes:
    with opens.unseen(), open(kept, "rb") as file:
        return file.read()


def patch(module: ModuleType, config: dict[str, Any]) -> None:
    """`module` is fsspec.spec: file systems are seen as they are made, in every process."""
    reads = Reads(config["objects_dir"])

    def cover(metaclass: Any) -> None:
        made = metaclass.__call__

        def make(cls: type, *args: Any, **kwargs: Any) -> Any:
            filesystem = made(cls, *args, **kwargs)
            try:
                reads.see(filesystem)
            except Exception:  # one that is unlike all others is left alone
                return filesystem
            return filesystem

        metaclass.__call__ = make

    begin = module._Cached.__init__

    def began(cls: Any, *args: Any, **kwargs: Any) -> None:
        begin(cls, *args, **kwargs)
        own = type(cls)  # of some libraries, with a __call__ that does not go on to fsspec's
        if "__call__" in vars(own) and own not in covered:
            covered.add(own)
            cover(own)

    covered = {module._Cached}
    cover(module._Cached)
    module._Cached.__init__ = began
