"""Objects that fsspec opens: which bytes they are, and how they come through the cache.

An object's key is made from where it lies, its byte range, its size and what the file system gives
to tell its versions apart. So an object that was replaced is a new item, and what nothing
identifies is delivered and never held.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import struct
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from coordl import _native
from coordl.fetch.admission import check_first_come
from coordl.fetch.cache import MinIOCache
from coordl.fetch.failure import unreadable_object
from coordl.fetch.retry import InconsistentReadError, Retry

# Keys of fsspec's info(), in lower case without "-" and "_", that change when the content does ...
_VERSIONS = frozenset(
    {
        "blobid", "checksum", "chksum", "contentmd5", "crc", "crc32c", "digest", "etag",
        "generation", "hex", "lastmodified", "md5", "md5hash", "modified", "modify", "mtime", "sha",
        "sha256", "timemodified", "updated", "versionid",
    }
)  # fmt: skip
_TIMES = frozenset({"lastmodified", "modified", "modify", "mtime", "timemodified", "updated"})
# ... and those that only add to them: an object can change in place.
_SUPPORTING = frozenset({"created", "ino"})
# Options that do not say where a file system is: secrets, which change while the place does not ...
_SECRET = re.compile(r"key|secret|token|passw|cred|sas|auth|session|cert", re.IGNORECASE)
# ... and those that fsspec itself knows of any file system.
FSSPEC_OPTIONS = frozenset(
    {
        "asynchronous", "auto_mkdir", "batch_size", "default_block_size", "default_cache_type",
        "default_fill_cache", "listings_expiry_time", "loop", "max_paths", "skip_instance_cache",
        "use_listings_cache",
    }
)  # fmt: skip
# Who cannot be held is still read whole, with all checks, up to this size; beyond it the file
# system's own files serve ranges.
WHOLE_BYTES = 64 << 20
TIMEOUT_S_PER_MIB = 1.0


class Unidentified(Exception):
    """Nothing tells an object's content; the message says why.

    Attributes:
        size: of the object, in bytes, where that at least is known.
    """

    size: int | None = None


@dataclass(frozen=True)
class Identity:
    """Which bytes an object is.

    Attributes:
        url: where it lies, as fsspec writes it. place: which file system, see place_of().
        size: bytes.
        version: what the file system gives to tell its versions apart.
    """

    url: str
    place: str
    size: int
    version: str

    def key(self, begin: int = 0, end: int | None = None) -> tuple[int, int]:
        """(high, low) halves of the 128-bit key of bytes [begin, end); the whole by default."""
        end = self.size if end is None else end
        digest = blake2b(digest_size=16, person=b"object")  # no key of a local file's
        digest.update(struct.pack("<3q", self.size, begin, end))
        for text in (self.place, self.url, self.version):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(struct.pack("<q", len(data)) + data)
        low, high = struct.unpack("<2Q", digest.digest())
        return high, low


def place_of(fs: Any) -> str:
    """Which storage a file system reads, as text: its class and the options that say where.

    Raises:
        Unidentified: an option is an object nobody can compare between processes.
    """
    kind = type(fs)
    options = {**getattr(fs, "storage_options", {})}
    options["*"] = list(getattr(fs, "storage_args", ()))
    return f"{kind.__module__}.{kind.__qualname__}{json.dumps(_plain(options), sort_keys=True)}"


def _plain(value: Any, name: str = "") -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {
            str(key): _plain(inner, str(key))
            for key, inner in value.items()
            if not _SECRET.search(str(key)) and key not in FSSPEC_OPTIONS
        }
    if isinstance(value, list | tuple):
        return [_plain(inner, name) for inner in value]
    if hasattr(value, "storage_options"):  # a file system in a file system
        return place_of(value)
    if isinstance(value, type) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    raise Unidentified(f"the file system's option {name} is a {type(value).__qualname__} object")


def identify_object(fs: Any, path: str, timeout_s: float | None = None) -> Identity:
    """Asks the file system, past its listing cache, which object is there now.

    Raises:
        Unidentified: it gives no size, or nothing that changes with the content.
        OSError: and whatever else the file system raises.
    """
    info = _fresh_info(fs, path, timeout_s)
    if info.get("type") == "directory":
        raise IsADirectoryError(21, "Is a directory", path)
    place, size = place_of(fs), info.get("size")
    if not isinstance(size, int):
        raise Unidentified("the storage does not say the object's size")
    try:
        return Identity(fs.unstrip_protocol(path), place, size, _version(fs, path, info))
    except Unidentified as reason:
        reason.size = size
        raise


def _version(fs: Any, path: str, info: dict[str, Any]) -> str:
    told = version_in(info)
    if told:
        return told
    return json.dumps({**_told(info, _SUPPORTING), **_asked(fs, path)}, sort_keys=True)


def version_in(info: dict[str, Any]) -> str:
    """What an info(), or an entry of a listing, has to tell versions apart; empty where nothing."""
    if not _told(info, _VERSIONS):
        return ""
    return json.dumps(_told(info, _VERSIONS | _SUPPORTING), sort_keys=True)


def same_version(one: str, other: str) -> bool | None:
    """Whether two versions are of one content, by what both of them tell; None: that is nothing.

    Times decide only where nothing better does: listings may have them finer than looks.
    """
    first, second = (
        {_plain_name(key): value for key, value in json.loads(text).items()}
        for text in (one, other)
    )
    common = first.keys() & second.keys() & _VERSIONS
    common = common - _TIMES or common
    return all(first[name] == second[name] for name in common) if common else None


def _told(info: dict[str, Any], names: frozenset[str]) -> dict[str, str]:
    return {
        key: str(info[key])
        for key in map(str, info)
        if _plain_name(key) in names and info.get(key) not in (None, "")
    }


def _plain_name(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _asked(fs: Any, path: str) -> dict[str, str]:
    """What the file system's own methods tell of a version that its info() does not."""
    from fsspec import AbstractFileSystem

    try:
        return {"modified": str(fs.modified(path))}
    except NotImplementedError:
        pass
    # The defaults hash info(), which has nothing; HTTP's hash the URL alone.
    http = type(fs).__module__.startswith("fsspec.implementations.http")
    for name in ("checksum", "ukey"):
        if not http and getattr(type(fs), name) is not getattr(AbstractFileSystem, name):
            return {name: str(getattr(fs, name)(path))}
    raise Unidentified("the storage gives no etag, version, checksum or time of the object")


def _fresh_info(fs: Any, path: str, timeout_s: float | None) -> dict[str, Any]:
    info = fs.info
    asked = getattr(info, "__wrapped__", info)
    options: dict[str, Any] = {}
    if "refresh" in inspect.signature(asked).parameters:
        options["refresh"] = True
    elif fs._parent(path) in getattr(fs, "dircache", ()):
        fs.invalidate_cache(fs._parent(path))
    return dict(timed(info, timeout_s)(path, **options))


def timed(method: Callable[..., Any], timeout_s: float | None) -> Callable[..., Any]:
    """The method with a time limit, where fsspec runs it in its event loop; others have theirs."""
    if timeout_s is None or not inspect.iscoroutinefunction(getattr(method, "__wrapped__", None)):
        return method
    return lambda *args, **options: method(*args, timeout=timeout_s, **options)


class ObjectReader:
    """Reads objects through a cache: each whole, once, checked, with temporary errors retried.

    Threads may share it; a forked child goes on with it.

    Args:
        cache: holds what was read.
        retry: how temporary errors are met.
        recheck_s: for how long a look at an object holds. At 0 the storage is asked at every read
            whether the object still is the same, also when the cache holds it.
        timeout_s: of one request, and a second more for each MiB to be read; for file systems that
            fsspec runs in its event loop, others have limits of their own.
    """

    def __init__(
        self,
        cache: MinIOCache,
        retry: Retry | None = None,
        recheck_s: float = 0.0,
        timeout_s: float = 60.0,
    ) -> None:
        check_first_come(cache.admission, "a storage")
        self.cache = cache
        self.retry = retry or Retry()
        self.recheck_s = recheck_s
        self.timeout_s = timeout_s
        self._clear()

    def _clear(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, Identity]] = {}
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._bypassed: Counter[str] = Counter()
        self._waited_s = 0.0
        _readers.add(self)

    def __getstate__(self) -> tuple[Any, ...]:
        return self.cache, self.retry, self.recheck_s, self.timeout_s

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.cache, self.retry, self.recheck_s, self.timeout_s = state
        self._clear()

    def read(self, fs: Any, path: str, index: int = -1) -> bytes | memoryview:
        """The whole object: a read-only view of the cache, or bytes read now.

        Raises:
            ItemError: it cannot be read, names url and `index` and says what to do; an OSError as
                well (FileNotFoundError, PermissionError, TimeoutError where it is one).
        """
        data = self._tried(fs, path, index, None)
        assert data is not None
        return data

    def read_unless_large(self, fs: Any, path: str) -> bytes | memoryview | None:
        """The same; None for an object beyond WHOLE_BYTES that the cache cannot take or nothing
        identifies: better read in part, from the file system itself."""
        return self._tried(fs, path, -1, WHOLE_BYTES)

    def stats(self) -> dict[str, Any]:
        """Of this process: hits, misses (objects), served_bytes from the cache, storage_bytes read,
        admitted_bytes; bypassed: objects by the reason why they are never held; retries, waited_s
        (seconds waited before them), errors."""
        names = (
            "hits", "misses", "served_bytes", "storage_bytes", "admitted_bytes", "retries", "errors"
        )  # fmt: skip
        with self._lock:
            return {
                **{name: self._counts[name] for name in names},
                "waited_s": self._waited_s,
                "bypassed": dict(self._bypassed),
            }

    def forget(self, fs: Any, path: str) -> None:
        """The object is about to change: the next read looks at it again."""
        self._known.pop(_name(fs, path), None)

    def _tried(
        self, fs: Any, path: str, index: int, whole_bytes: int | None
    ) -> bytes | memoryview | None:
        tries = 1

        def retried(wait_s: float) -> None:
            nonlocal tries
            tries += 1
            self.forget(fs, path)
            self._count("retries", 1)
            with self._lock:
                self._waited_s += wait_s

        try:
            return self.retry.call(lambda: self._read(fs, path, whole_bytes), retried)
        except (OSError, RuntimeError) as error:
            raise self._failed(error, fs, path, index, tries) from error
        except Exception as error:
            if type(error).__module__.split(".")[0] == "builtins":
                raise  # a mistake, not the storage
            raise self._failed(error, fs, path, index, tries) from error

    def _failed(self, error: Exception, fs: Any, path: str, index: int, tries: int) -> Exception:
        self._count("errors", 1)
        return unreadable_object(error, fs.unstrip_protocol(path), index, tries)

    def _read(self, fs: Any, path: str, whole_bytes: int | None) -> bytes | memoryview | None:
        try:
            identity = self._identity(fs, path)
        except Unidentified as reason:
            with self._lock:
                self._bypassed[str(reason)] += 1
            if whole_bytes is not None:
                return None
            return self._counted(timed(fs.cat_file, self.timeout_s)(path))
        key = identity.key()
        held = self.cache.get(key)
        if held is not None:
            self._count("hits", 1, served_bytes=len(held))
            return held
        room = self._room(identity.size)
        if not room and whole_bytes is not None and identity.size > whole_bytes:
            self._count("misses", 1)
            return None
        limit_s = self.timeout_s + TIMEOUT_S_PER_MIB * identity.size / 2**20
        data = self._counted(timed(fs.cat_file, limit_s)(path))
        self._count("misses", 1)
        if len(data) != identity.size:
            raise InconsistentReadError(
                f"{len(data):,} bytes came of the {identity.size:,} the storage says it has"
            )
        if room:
            self._admit(fs, path, identity, data)
        return data

    def _admit(self, fs: Any, path: str, identity: Identity, data: bytes) -> None:
        # Asking once more costs one small request, once in the life of an item. Without it, bytes
        # of a new object of the same length could be held under the old one's name.
        if identify_object(fs, path, self.timeout_s) != identity:
            raise InconsistentReadError("the object was replaced while it was read")
        key = identity.key()
        # (What only looks like an item of ours is an object like any other, but cannot be held.)
        if _native.check_item(data) and self.cache.admit(key, data):
            self._count("admitted_bytes", len(data))

    def _identity(self, fs: Any, path: str) -> Identity:
        if self.recheck_s <= 0:
            return identify_object(fs, path, self.timeout_s)
        name, now = _name(fs, path), time.monotonic()
        looked = self._known.get(name)
        if looked is None or now - looked[0] > self.recheck_s:
            looked = now, identify_object(fs, path, self.timeout_s)
            self._known[name] = looked
        return looked[1]

    def _room(self, size: int) -> bool:
        return self.cache.has_room(size)

    def _counted(self, data: bytes) -> bytes:
        self._count("storage_bytes", len(data))
        return data

    def _count(self, name: str, by: int, **more: int) -> None:
        with self._lock:
            self._counts[name] += by
            self._counts.update(more)


def _name(fs: Any, path: str) -> tuple[str, str]:
    try:
        return place_of(fs), path
    except Unidentified:  # never remembered
        return "", path


_readers: weakref.WeakSet[ObjectReader] = weakref.WeakSet()


def _renew_locks() -> None:
    for reader in list(_readers):
        reader._lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_renew_locks)
