"""Reads of objects through fsspec: told to the tool, and served from memory where it says so.

In a profile's first run every whole object that is read is kept (measure/objects.py), and from then
on found in memory; so prep passes fetch nothing. In its second run an object is found in memory
where the policy holds it, and read as the job reads it where not. Whole reads are seen: `open(...)`
and `cat_file(...)`, and what is built on them. Parts of an object (`start`, `end`) and questions
about one (`info`, `exists`) go where they always went.
"""

from __future__ import annotations

import io
import os
from types import ModuleType
from typing import Any

from dsanalyzer.hooks import opens
from dsanalyzer.measure import objects, residency

# Not of a network, or made of another file system that is seen itself.
_NOT_REMOTE = frozenset(
    (
        *("file", "local", "memory", "data", "dir", "zip", "tar", "libarchive", "reference"),
        *("generic", "cached", "blockcache", "filecache", "simplecache", "coordl"),
    )
)
LARGEST = 256 << 20  # bytes: above, an object is a shard of many samples


class Kept(io.BufferedReader):
    """An object in memory, opened; with what readers ask of fsspec's files."""

    def __init__(self, filesystem: Any, path: str, kept: str) -> None:
        with opens.unseen():
            super().__init__(io.FileIO(kept))
        self.fs, self.path, self.size = filesystem, path, os.path.getsize(kept)


class _Reads:
    """What is done with reads of file systems of this process."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._folder = config["objects_dir"]
        self._first_run = config["kind"] == "rates"

    def see(self, filesystem: Any) -> None:
        """From now on; at most once."""
        protocols = type(filesystem).protocol
        named = {protocols} if isinstance(protocols, str) else set(protocols)
        if named & _NOT_REMOTE or vars(filesystem).get("_dsanalyzer"):
            return
        filesystem._dsanalyzer = True
        mirrored = "cat_file" in vars(filesystem)  # made of the coroutine by fsspec
        if mirrored:
            self._see_coroutine(filesystem)
        else:
            self._see_cat(filesystem)
        self._see_open(filesystem)

    def _see_cat(self, filesystem: Any) -> None:
        cat_file = filesystem.cat_file

        def watched(path: str, start: Any = None, end: Any = None, **kwargs: Any) -> Any:
            if start is not None or end is not None:
                return cat_file(path, start=start, end=end, **kwargs)
            if (kept := self._kept(filesystem, path)) is not None:
                return _content(kept)
            data = cat_file(path, **kwargs)
            self._came(filesystem, path, data)
            return data

        filesystem.cat_file = watched

    def _see_coroutine(self, filesystem: Any) -> None:
        from fsspec.asyn import sync_wrapper

        cat_file = filesystem._cat_file

        async def watched(path: str, start: Any = None, end: Any = None, **kwargs: Any) -> Any:
            if start is not None or end is not None:
                return await cat_file(path, start=start, end=end, **kwargs)
            if (kept := self._kept(filesystem, path)) is not None:
                return _content(kept)
            data = await cat_file(path, **kwargs)
            self._came(filesystem, path, data)
            return data

        filesystem._cat_file = watched
        filesystem.cat_file = sync_wrapper(watched, obj=filesystem)

    def _see_open(self, filesystem: Any) -> None:
        open_object = filesystem._open

        def watched(path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
            if mode == "rb":
                kept = self._kept(filesystem, path)
                if kept is None and self._first_run:
                    kept = self._whole(filesystem, path)
                if kept is not None:
                    return Kept(filesystem, path, kept)
            return open_object(path, mode, *args, **kwargs)

        filesystem._open = watched

    def _kept(self, filesystem: Any, path: str) -> str | None:
        """The object's file, where the job is to find it in memory; the tool is told either way."""
        kept = self._path(filesystem, path)
        if not os.path.exists(kept):
            return None
        found = self._first_run or objects.in_memory(kept)
        opens.tell(kept, 0 if found else residency.device_bytes(os.path.getsize(kept)))
        return kept if found else None

    def _came(self, filesystem: Any, path: str, data: Any) -> None:
        """The object was read whole: it is kept, in the first run."""
        if not self._first_run or len(data) > LARGEST:
            return
        kept, url = self._path(filesystem, path), self._url(filesystem, path)
        with opens.unseen():
            done = objects.keep(kept, bytes(data), url, _as_json(filesystem))
        if done:
            opens.tell(kept, residency.device_bytes(len(data)))

    def _whole(self, filesystem: Any, path: str) -> str | None:
        """The file of an object that is about to be opened for the first time."""
        try:
            if not 0 < (filesystem.size(path) or 0) <= LARGEST:
                return None
            filesystem.cat_file(path)
        except Exception:  # whatever it is, opening it will say so to the job
            return None
        kept = self._path(filesystem, path)
        return kept if os.path.exists(kept) else None

    def _path(self, filesystem: Any, path: str) -> str:
        url = self._url(filesystem, path)
        return objects.kept_path(self._folder, url, filesystem.storage_options)

    def _url(self, filesystem: Any, path: str) -> str:
        return str(filesystem.unstrip_protocol(filesystem._strip_protocol(path)))


def _content(kept: str) -> bytes:
    with opens.unseen(), open(kept, "rb") as file:
        return file.read()


def _as_json(filesystem: Any) -> str | None:
    try:
        return str(filesystem.to_json())
    except Exception:  # of what it was made with, something JSON does not know
        return None


def patch(module: ModuleType, config: dict[str, Any]) -> None:
    """`module` is fsspec.spec: file systems are seen as they are made, in every process."""
    reads = _Reads(config)
    made = module._Cached.__call__

    def make(cls: type, *args: Any, **kwargs: Any) -> Any:
        filesystem = made(cls, *args, **kwargs)
        reads.see(filesystem)
        return filesystem

    module._Cached.__call__ = make
