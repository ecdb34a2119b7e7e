"""Objects that the job reads from a network through fsspec, measured as files are.

An object has no pages that the tool could put into memory or take out. In its stead a file with its
bytes is kept in the profile's folder, and a mark beside that says whether the job is to find the
object in memory: hooks/remote.py then gives it the file's bytes, and else lets it ask where the
object lies. So the page cache's questions (residency.py) have answers for objects too, and what
holds of files (policy.py, storage.py) holds of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

_KEPT = ".dsanalyzer-object"
_MARK = ".in-memory"
_ORIGIN = ".origin"
_KEEPING, _REFUSED = "keeping", "refused"
NOT_KEPT = (
    "some objects that samples are read from are over 256 MB or of unknown size, or the disk of "
    "TMPDIR has less than 1 GiB left beside them: the tool cannot keep them to serve them from "
    "memory, so it cannot tell fetch from prep"
)
LEFT_BYTES = 1 << 30  # of the folder's file system that keeping objects does not fill


@contextlib.contextmanager
def keeping(folder: str) -> Iterator[None]:
    """Within it, whole objects that any process of the job reads are kept.

    Each rank has a sign of its own, and objects are kept until the last has ended.
    """
    os.makedirs(os.path.join(folder, _KEEPING), exist_ok=True)
    sign = os.path.join(folder, _KEEPING, str(os.getpid()))
    with open(sign, "wb"):
        pass
    try:
        yield
    finally:
        os.unlink(sign)


def is_keeping(folder: str) -> bool:
    try:
        return bool(os.listdir(os.path.join(folder, _KEEPING)))
    except FileNotFoundError:
        return False


def refuse(folder: str) -> None:
    """An object cannot be kept."""
    with open(os.path.join(folder, _REFUSED), "wb"):
        pass


def refused(folder: str) -> bool:
    """Whether an object could not be kept."""
    return os.path.exists(os.path.join(folder, _REFUSED))


def kept_path(folder: str, filesystem: Any, path: str) -> str:
    """Where an object is kept, by its file system's class and arguments and its path there.

    The same in every process of the job: of arguments that JSON does not know the type counts.
    """
    made = json.dumps(
        [type(filesystem).__qualname__, filesystem.storage_args, filesystem.storage_options, path],
        default=lambda value: type(value).__qualname__,
        sort_keys=True,
    )
    return os.path.join(folder, hashlib.sha256(made.encode()).hexdigest()[:32] + _KEPT)


def is_object(path: str) -> bool:
    """Whether `path` stands for an object."""
    return path.endswith(_KEPT)


def keep(kept: str, data: bytes, filesystem: Any, path: str) -> bool:
    """Keep an object's bytes and where they are from; False where the disk has no room for them."""
    folder = os.path.dirname(kept)
    if shutil.disk_usage(folder).free < len(data) + LEFT_BYTES:
        return False
    client = _client(filesystem)
    name = hashlib.sha256(client).hexdigest()[:32] + ".client" if client else None
    if name and not os.path.exists(os.path.join(folder, name)):
        _write(os.path.join(folder, name), client)
    origin = {"url": filesystem.unstrip_protocol(path), "path": path, "client": name}
    _write(kept + _ORIGIN, json.dumps(origin).encode())
    _write(kept, data)
    return True


def _write(place: str, content: bytes) -> None:
    """Seen whole or not at all, by nobody else."""
    own = f"{place}.{os.getpid()}-{threading.get_ident()}"
    with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    os.rename(own, place)


def _client(filesystem: Any) -> bytes:
    """What a file system like this one is made of; nothing where that cannot be pickled."""
    options = dict(filesystem.storage_options)
    for name in ("asynchronous", "loop"):  # are of the job's own event loop
        options.pop(name, None)
    try:
        return pickle.dumps((type(filesystem), filesystem.storage_args, options))
    except Exception:
        return b""


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
    """The URL of the object that `path` stands for, without what may be secret in it (user, query);
    a file's own path."""
    if not is_object(path):
        return path
    url = urlsplit(_origin(path)["url"])
    server = url.netloc.rpartition("@")[2]
    told = f"?{os.path.basename(path)[:8]}" if url.query else ""
    return f"{url.scheme}://{server}{url.path}{told}"


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
    if origin["client"] is None:
        raise RuntimeError(
            "what the job's file system was made with cannot be pickled, so the tool cannot make "
            "one like it to read objects without the job"
        )
    try:
        with open(os.path.join(os.path.dirname(path), origin["client"]), "rb") as file:
            kind, args, options = pickle.load(file)  # the user's own, out of a private folder
        filesystem = kind(*args, **options)  # which fsspec makes once
    except Exception as error:
        raise RuntimeError(
            "the tool cannot make a file system like the job's, to read objects without the job: "
            f"{error}. Install what the job reads with beside dsanalyzer"
        ) from error
    return len(filesystem.cat_file(origin["path"]))


def _origin(path: str) -> dict[str, Any]:
    with open(path + _ORIGIN) as file:
        origin: dict[str, Any] = json.load(file)
    return origin


def received_bytes() -> int:
    """By this machine's (or container's) network interfaces so far, its own to itself included."""
    try:
        with open("/proc/self/net/dev") as file:
            return sum(int(line.partition(":")[2].split()[0]) for line in file if ":" in line)
    except (OSError, ValueError, IndexError):
        return 0
