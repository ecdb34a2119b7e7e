"""fsspec's side of the cache: `fsspec.open("coordl::s3://bucket/key")`, for any library.

Objects are held whole in the never-evict cache and read from there, ranges included; everything
else, writing above all, goes to the file system below as it is.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, ClassVar

from fsspec import filesystem
from fsspec.implementations.chained import ChainedFileSystem

from coordl.fetch.budget import parse_budget
from coordl.fetch.cache import MinIOCache
from coordl.fetch.held_file import HeldFile
from coordl.fetch.remote import FSSPEC_OPTIONS, ObjectReader, Unidentified, place_of
from coordl.fetch.retry import Retry

BUDGET_VARIABLE = "COORDL_CACHE"


def _below(name: str, changes: bool = False) -> Callable[..., Any]:
    """A method that the file system below has for us. `changes`: what it does to its first path."""

    def method(self: CachedFileSystem, path: Any, *args: Any, **options: Any) -> Any:
        if changes:
            self._forget(path)
        return getattr(self.fs, name)(self._below_path(path), *args, **options)

    method.__name__ = name
    return method


class CachedFileSystem(ChainedFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Another file system, whose objects are read through a never-evict cache in shared memory.

    Every process of this user on this machine that reads the same storage shares the cache. It
    lives as long as one of them does. Temporary errors of the storage are retried. Instances may be
    pickled and used after a fork; threads may share one.

    Args:
        fs: the file system below; or target_protocol and target_options, as a chained URL gives
            them.
        cache: a MinIOCache, or its budget: bytes, "20GiB" or "auto". By default the environment's
            COORDL_CACHE, else "auto": see coordl.fetch.budget.
        name: which arena holds the objects; by default one for each storage (its class and the
            options that say where it is).
        recheck_s: for how many seconds a look at an object holds; 0 asks the storage at each open
            whether the object is still the same. Data sets that never change want it large:
            what is held is then served without any request.
        timeout_s: of one request, and a second more for each MiB.
        attempts: how often a request is made at most, see coordl.fetch.retry.

    Raises:
        TypeError: an option neither coordl nor fsspec itself knows.
        ValueError: no file system, or two; an asynchronous one; a bad budget.
        CacheError: no usable cache can be had.
    """

    protocol: ClassVar[str] = "coordl"
    cachable = False  # it is cheap to make; the arenas and the file systems below are kept
    _strip_tokenize_options = ("fo",)

    def __init__(
        self,
        fs: Any = None,
        cache: MinIOCache | int | str | None = None,
        *,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        fo: str | None = None,
        name: str | None = None,
        recheck_s: float = 0.0,
        timeout_s: float = 60.0,
        attempts: int = Retry.attempts,
        **options: Any,
    ) -> None:
        unknown = [each for each in options if each not in FSSPEC_OPTIONS]
        if unknown:
            raise TypeError(
                f"coordl: unknown option {unknown[0]!r}; known are cache, name, recheck_s, "
                "timeout_s and attempts (those of the storage go under its own protocol's name)"
            )
        super().__init__(**options)
        if (fs is None) == (target_protocol is None):
            raise ValueError(
                "coordl caches another file system: chain its URL ('coordl::s3://bucket/key'), or "
                "give fs= or target_protocol=, one of them"
            )
        self._fs = fs if fs is not None else filesystem(target_protocol, **(target_options or {}))
        if getattr(self._fs, "asynchronous", False):
            raise ValueError(
                "coordl reads synchronously: give a file system with asynchronous=False"
            )
        self.target_protocol = target_protocol or _protocol(self._fs)
        retry = Retry(attempts=attempts)
        if isinstance(cache, MinIOCache):
            held = cache
            held.tiers  # noqa: B018 - one without a name is told now, not at the first read
        else:
            held = _cache_of(self._fs, cache, name)
        self.reader = _reader_of(held, retry, recheck_s, timeout_s)
        # Instances differ in what is below, so this hides the class's method.
        self._strip_protocol = self._below_path  # type: ignore[method-assign]

    @property
    def fs(self) -> Any:
        """The file system below; of this process: async ones do not survive a fork."""
        if getattr(self._fs, "async_impl", False) and self._fs._pid != os.getpid():
            self._fs = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options)
        return self._fs

    @property
    def cache(self) -> MinIOCache:
        return self.reader.cache

    def stats(self) -> dict[str, Any]:
        """What this process read, see ObjectReader.stats(), and of the cache: cache_bytes,
        cache_budget, cache_items, cache_limit (what the budget was chosen from)."""
        held = self.cache.stats()
        return {
            **self.reader.stats(),
            "cache_bytes": held["used_bytes"],
            "cache_budget": held["budget_bytes"],
            "cache_items": held["items"],
            "cache_limit": self.cache.budget_limit(),
        }

    # -- reading -----------------------------------------------------------------------------

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            self._forget(path)
            return self.fs._open(path, mode=mode, **options)
        data = self.reader.read_unless_large(self.fs, path)
        if data is None:
            return self.fs._open(path, mode=mode, **options)
        return HeldFile(data, path)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """Bytes [start, end) of the object; negative ones count from the end."""
        path = self._below_path(path)
        if start is None and end is None:
            return bytes(self.reader.read(self.fs, path))
        data = self.reader.read_unless_large(self.fs, path)
        if data is None:
            return bytes(self.fs.cat_file(path, start, end, **options))
        return bytes(data[slice(start, end)])

    # -- everything else is the file system's below ------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # type: ignore[no-redef]
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = os.fspath(path)
        for prefix in ("coordl::", "coordl://"):
            path = path.removeprefix(prefix)
        return path

    def _below_path(self, path: Any) -> Any:
        return self._fs._strip_protocol(type(self)._strip_protocol(path))

    def unstrip_protocol(self, name: str) -> str:
        return f"coordl::{self.fs.unstrip_protocol(self._below_path(name))}"

    def _parent(self, path: str) -> str:  # type: ignore[override]
        return str(self.fs._parent(self._below_path(path)))

    info = _below("info")
    ls = _below("ls")
    find = _below("find")
    glob = _below("glob")
    walk = _below("walk")
    exists = _below("exists")
    isfile = _below("isfile")
    isdir = _below("isdir")
    du = _below("du")
    size = _below("size")
    created = _below("created")
    modified = _below("modified")
    checksum = _below("checksum")
    ukey = _below("ukey")
    sign = _below("sign")
    mkdir = _below("mkdir")
    makedirs = _below("makedirs")
    rmdir = _below("rmdir")
    touch = _below("touch", changes=True)
    pipe_file = _below("pipe_file", changes=True)
    rm_file = _below("rm_file", changes=True)
    rm = _below("rm", changes=True)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self._forget(rpath)
        self.fs.put_file(lpath, self._below_path(rpath), **options)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        self._forget(path2)
        self.fs.cp_file(self._below_path(path1), self._below_path(path2), **options)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forgets listings of the file system below; what the cache holds has a version."""
        self.fs.invalidate_cache(None if path is None else self._below_path(path))

    @classmethod
    def clear_instance_cache(cls) -> None:
        """Lets go of the arenas this process keeps for URLs: with their last user they end."""
        with _lock:
            _caches.clear()
            _readers.clear()

    def _forget(self, paths: Any) -> None:
        for path in paths if isinstance(paths, list) else [paths]:
            self.reader.forget(self.fs, self._below_path(path))

    def __reduce__(self) -> tuple[Any, ...]:
        reader = self.reader
        return _made, (type(self), self._fs, reader.cache, reader.recheck_s, reader.timeout_s,
                       reader.retry.attempts)  # fmt: skip

    def __repr__(self) -> str:
        return f"coordl.CachedFileSystem({self.target_protocol}, {self.cache})"


def _made(
    kind: type[CachedFileSystem], fs: Any, cache: MinIOCache, *settings: Any
) -> CachedFileSystem:
    recheck_s, timeout_s, attempts = settings
    return kind(fs, cache, recheck_s=recheck_s, timeout_s=timeout_s, attempts=attempts)


def _protocol(fs: Any) -> str:
    return fs.protocol if isinstance(fs.protocol, str) else str(fs.protocol[0])


# One arena for each storage and one reader for each way to read it, as long as the process lives:
# a URL is opened anew for every object, and an arena ends with its last user.
_lock = threading.Lock()
_caches: dict[str, tuple[MinIOCache, Any]] = {}
_readers: dict[tuple[Any, ...], ObjectReader] = {}


def _cache_of(fs: Any, budget: int | str | None, name: str | None) -> MinIOCache:
    asked = budget
    if budget is None:
        budget = os.environ.get(BUDGET_VARIABLE) or "auto"
    if name is None:
        try:
            place = place_of(fs)
        except Unidentified:
            place = f"{type(fs).__module__}.{type(fs).__qualname__}"
        name = blake2b(place.encode(), digest_size=12, person=b"fsspec").hexdigest()
    with _lock:
        if name not in _caches:
            parse_budget(budget)  # a percentage has no data set here
            _caches[name] = MinIOCache(budget, name=name, form="original"), budget
        cache, first = _caches[name]
    if asked is not None and asked != first:
        warnings.warn(
            f"cache={asked!r}: this storage's cache was opened with {first!r} before, which stays",
            stacklevel=4,
        )
    return cache


def _reader_of(cache: MinIOCache, retry: Retry, recheck_s: float, timeout_s: float) -> ObjectReader:
    if _caches.get(cache.name, (None,))[0] is not cache:
        return ObjectReader(cache, retry, recheck_s, timeout_s)
    key = (cache.name, retry, recheck_s, timeout_s)
    with _lock:
        if key not in _readers:
            _readers[key] = ObjectReader(cache, retry, recheck_s, timeout_s)
        return _readers[key]


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
