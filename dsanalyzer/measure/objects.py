"""Objects that the job reads from a network through fsspec, measured as files are.

An object has no pages that the tool could put into memory or take out. In its stead a file with its
bytes is kept in the profile's folder, and a mark beside that says whether the job is to find the
object in memory: hooks/remote.py then gives it the file's bytes, and else lets it ask where the
object lies. So the page cache's questions (residency.py) have answers for objects too, and what
holds of files (policy.py, storage.py) holds of them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import threading
from typing import Any

_KEPT = ".dsanalyzer-object"
_MARK = ".in-memory"
_ORIGIN = ".origin"
LEFT_BYTES = 1 << 30  # of the folder's file system that keeping objects does not fill


def kept_path(folder: str, url: str, options: dict[str, Any]) -> str:
    """Where an object is kept, by its URL and what its file system was made with.

    The same in every process of the job: what JSON does not know counts by its type.
    """
    made = json.dumps(options, sort_keys=True, default=lambda value: type(value).__qualname__)
    name = hashlib.sha256(f"{url}\n{made}".encode()).hexdigest()[:32]
    return os.path.join(folder, name + _KEPT)


def is_object(path: str) -> bool:
    """Whether `path` stands for an object."""
    return path.endswith(_KEPT)


def keep(path: str, data: bytes, url: str, filesystem: str | None) -> bool:
    """Keep an object's bytes; False where the disk has no room for them.

    Args:
        path: kept_path() of it.
        url: where it lies.
        filesystem: what reads it there, as fsspec's `to_json` says it; None where that cannot.
    """
    if shutil.disk_usage(os.path.dirname(path)).free < len(data) + LEFT_BYTES:
        return False
    own = f".{os.getpid()}-{threading.get_ident()}"
    origin = json.dumps({"url": url, "filesystem": filesystem}).encode()
    for place, content in ((path + _ORIGIN, origin), (path, data)):  # seen whole or not at all
        with open(place + own, "wb") as file:
            file.write(content)
        os.rename(place + own, place)
    return True


def in_memory(path: str) -> bool:
    """Whether the job is to find the object in memory."""
    return os.path.exists(path + _MARK)


def put(path: str) -> None:
    """The job finds it in memory from now on."""
    with open(path + _MARK, "wb"):
        pass


def take_out(path: str) -> None:
    """The job asks for it where it lies from now on."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + _MARK)


def name_of(path: str) -> str:
    """The URL of the object that `path` stands for; a file's own path."""
    return str(_origin(path)["url"]) if is_object(path) else path


def named(sizes: dict[str, int]) -> dict[str, int]:
    """`sizes` by path, with the URLs of objects in the place of what stands for them here."""
    return {name_of(path): size for path, size in sizes.items()}


def fetch(path: str) -> int:
    """Read the object from where it lies, by a file system like the job's; returns its bytes.

    Raises:
        OSError, or what else the file system raises.
        RuntimeError: the job's file system cannot be made in this process.
    """
    origin = _origin(path)
    return len(_filesystem(origin["filesystem"]).cat_file(origin["url"]))


def _origin(path: str) -> dict[str, Any]:
    with open(path + _ORIGIN) as file:
        origin: dict[str, Any] = json.load(file)
    return origin


@functools.cache
def _filesystem(made: str | None) -> Any:
    if made is None:
        raise RuntimeError(
            "the job's file system does not say what it was made with (fsspec's to_json), so the "
            "tool cannot make one like it to read objects without the job"
        )
    try:
        from fsspec import AbstractFileSystem

        return AbstractFileSystem.from_json(made)
    except Exception as error:
        raise RuntimeError(
            "the tool cannot make a file system like the job's, to read objects without the job: "
            f"{error}. Install what the job reads with beside dsanalyzer"
        ) from error


def received_bytes() -> int:
    """By this machine's (or container's) network interfaces so far, its own to itself included."""
    try:
        with open("/proc/self/net/dev") as file:
            return sum(int(line.partition(":")[2].split()[0]) for line in file if ":" in line)
    except (OSError, ValueError, IndexError):
        return 0
