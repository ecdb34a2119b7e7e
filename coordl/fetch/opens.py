"""Opens of a data set nobody knows: what its Python code opens to read comes from the cache.

While an `Opens` is entered, `open`, `io.open` (so pathlib's too) and `os.open` of plain files below
its folders, for reading only, are answered from the arena. All else, writing above all, goes where
it always went. A file is what a look at it says at each open (path, device, size, time of change of
content and of its inode), so what was held of a file that changed is never given again.

What opens files without Python, or with a reference to `open` of its own, bypasses the cache. It is
counted: opens where Python raises the audit event for them, bytes as the kernel counts what the
thread read.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import stat
import struct
import sys
import threading
import time
from hashlib import blake2b
from types import TracebackType
from typing import Any

from coordl import _native
from coordl.fetch.cache import MinIOCache
from coordl.fetch.held_file import HeldFile, memory_descriptor
from coordl.fetch.tally import Tally

# A file is held whole. Who opens a larger one wants a part of it, more often than not.
OPEN_LIMIT_BYTES = 64 << 20
COUNTED = (
    "hits", "misses", "served_bytes", "storage_bytes", "admitted_bytes", "bypassed_opens",
    "bypassed_bytes", "fetch_ns",
)  # fmt: skip
_STDIO_BYTES = 8192
_READING = {"r", "rt", "tr", "rb", "br"}
_HARMLESS = os.O_CLOEXEC | os.O_NOATIME | os.O_NOCTTY | getattr(os, "O_LARGEFILE", 0)


class Opens:
    """Serves opens for reading below folders from a cache, while it is entered.

    It may be entered by several threads, and again by the same one. Picklable.

    Args:
        folders: below which files are served.
        cache: holds them.
        tally: counts COUNTED.
    """

    def __init__(self, folders: list[str], cache: MinIOCache, tally: Tally) -> None:
        spelled = {os.path.abspath(folder) for folder in folders}
        self.folders = tuple(
            os.path.join(folder, "")
            for folder in sorted(spelled | {os.path.realpath(folder) for folder in spelled})
        )
        self.cache = cache
        self.tally = tally

    def __enter__(self) -> Opens:
        _enter(self)
        _local.marks = [*getattr(_local, "marks", ()), (_read_by_thread(), _own_bytes())]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        (read, told), own = _local.marks.pop()
        now, _ = _read_by_thread()
        _leave(self)
        if read >= 0 and now >= 0:
            # The kernel counts our first look itself, which came after it was written.
            others = now - read - told - (_own_bytes() - own)
            self.tally.add("bypassed_bytes", max(0, others))

    def covers(self, path: str) -> bool:
        return path.startswith(self.folders)

    def fetch(self, path: str) -> bytes | memoryview | None:
        """The whole file; None where the cache is not to serve it (no plain file, too large, gone,
        changed while it was read): whoever asked goes to the file itself.

        Args:
            path: absolute, as full_path() gives it.
        """
        found = os.stat(path)
        limit = min(OPEN_LIMIT_BYTES, self.cache.largest_budget_bytes)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            return None
        held = self.cache.get(_key(path, found))
        if held is not None:
            self.tally.add("hits", 1)
            self.tally.add("served_bytes", len(held))
            return held
        start = time.perf_counter_ns()
        data = self._read(path)
        self.tally.add("fetch_ns", time.perf_counter_ns() - start)
        return data

    def _read(self, path: str) -> bytes | None:
        descriptor = _os_open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = os.fstat(descriptor)
            data = _read_whole(descriptor, before.st_size)
            _local.own_bytes = _own_bytes() + len(data)
            self.tally.add("storage_bytes", len(data))
            key = _key(path, before)
            if len(data) != before.st_size or _key(path, os.fstat(descriptor)) != key:
                return None
            self.tally.add("misses", 1)
            # (What only looks like an item of ours is a file like any other, but cannot be held.)
            if _native.check_item(data) and self.cache.admit(key, data):
                self.tally.add("admitted_bytes", len(data))
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # held twice otherwise
            return data
        finally:
            os.close(descriptor)


def full_path(path: Any) -> str:
    """Absolute, as the key has it. A ".." behind a link is not what the text says: resolved."""
    text = os.fsdecode(path)
    return os.path.realpath(text) if ".." in text else os.path.abspath(text)


def _key(path: str, found: os.stat_result) -> tuple[int, int]:
    digest = blake2b(os.fsencode(path), digest_size=16, person=b"opens")  # no key of other readers'
    numbers = (found.st_dev, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    digest.update(struct.pack("<4Q", *(number & (2**64 - 1) for number in numbers)))
    low, high = struct.unpack("<2Q", digest.digest())
    return high, low


def _read_whole(descriptor: int, size: int) -> bytes:
    """At most a byte more than `size`, which tells that it grew."""
    parts, rest = [], size + 1
    while rest > 0 and (part := os.read(descriptor, rest)):
        parts.append(part)
        rest -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


# -- in Python's place -----------------------------------------------------------------------

_open, _os_open = builtins.open, os.open
_lock = threading.RLock()
_entered: list[Opens] = []
_in_chain = False  # somebody wrapped ours meanwhile: it stays, and passes on
_listening = False
_local = threading.local()


def _enter(opens: Opens) -> None:
    global _open, _os_open, _listening
    with _lock:
        _entered.append(opens)
        if not _listening:
            sys.addaudithook(_audit)  # for good: Python takes none back
            _listening = True
        if len(_entered) == 1 and not _in_chain:
            _open, _os_open = builtins.open, os.open
            builtins.open = io.open = _served_open  # type: ignore[assignment]
            os.open = _served_os_open


def _leave(opens: Opens) -> None:
    global _in_chain
    with _lock:
        with contextlib.suppress(ValueError):  # a fork between: the child starts without any
            _entered.remove(opens)
        if _entered or _in_chain:
            return
        if builtins.open is _served_open and os.open is _served_os_open:
            builtins.open = io.open = _open  # type: ignore[assignment]
            os.open = _os_open
        elif builtins.open is not _open:
            _in_chain = True


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it
    if _entered:
        _entered.clear()
        if builtins.open is _served_open:
            builtins.open = io.open = _open  # type: ignore[assignment]
            os.open = _os_open


os.register_at_fork(after_in_child=_after_fork)


def _held(path: Any) -> bytes | memoryview | None:
    """The bytes to answer an open of `path` with; None: it is not ours to answer."""
    if not _entered or getattr(_local, "busy", False):
        return None
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    _local.busy = True  # what we open is not counted as the user's, nor served again
    try:
        full = full_path(path)
        opens = _covering(full)
        return None if opens is None else opens.fetch(full)
    except OSError:  # the real open says what is wrong
        return None
    finally:
        _local.busy = False


def _covering(path: str) -> Opens | None:
    return next((opens for opens in reversed(_entered) if opens.covers(path)), None)


def _served_open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    text = "b" not in mode
    plain = opener is None and closefd and (text or (encoding, errors, newline) == (None,) * 3)
    if mode in _READING and plain and not (text and buffering == 0) and buffering != 1:
        data = _held(file)
        if data is not None:
            held = HeldFile(data, file, _descriptor)
            if text:
                wrapped = io.TextIOWrapper(held, encoding, errors, newline)
                wrapped.mode = mode  # type: ignore[misc]
                return wrapped
            return held.detach() if buffering == 0 else held
    return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)


def _served_os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    if dir_fd is None and flags & ~_HARMLESS == os.O_RDONLY:
        data = _held(path)
        if data is not None:
            return _descriptor(data)
    return _os_open(path, flags, mode, dir_fd=dir_fd)


def _descriptor(data: bytes | memoryview) -> int:
    """One of a copy. Who has it reads by itself, which the kernel counts like any read: so much,
    and what stdio reads twice, is taken off what bypassed."""
    _local.own_bytes = _own_bytes() + len(data) + _STDIO_BYTES
    return memory_descriptor(data)


# -- what bypasses ---------------------------------------------------------------------------


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" or not _entered or getattr(_local, "busy", False):
        return
    path, _, flags = args
    if not isinstance(path, str | bytes | os.PathLike) or not isinstance(flags, int):
        return
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | getattr(os, "O_DIRECTORY", 0)):
        return
    opens = _covering(full_path(path))
    if opens is not None:
        opens.tally.add("bypassed_opens", 1)


def _own_bytes() -> int:
    return int(getattr(_local, "own_bytes", 0))


def _read_by_thread() -> tuple[int, int]:
    """Bytes the kernel counts as read by this thread so far, and of those that this look reads
    itself, which it does not count yet. -1 where it does not tell."""
    _local.busy, was = True, getattr(_local, "busy", False)
    try:
        descriptor = _os_open("/proc/thread-self/io", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
        return int(text.split(b"\n", 1)[0].removeprefix(b"rchar: ")), len(text)
    except (OSError, ValueError):
        return -1, 0
    finally:
        _local.busy = was
