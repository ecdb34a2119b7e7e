"""A file whose bytes are in memory: what readers get that ask for an open file.

Reads copy from the bytes themselves (a view of the cache, usually), seeking costs nothing, and
there is no descriptor: who insists on one (mmap, `numpy.fromfile`) gets one of a copy in memory,
made only then.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

_os_open = os.open  # opens.py may have put its own in place


class _Bytes(io.RawIOBase):
    def __init__(
        self, data: bytes | memoryview, name: Any, descriptor: Callable[[Any], int] | None
    ) -> None:
        self.name = name
        self.mode = "rb"
        self._data = memoryview(data)
        self._at = 0
        self._make_descriptor = descriptor
        self._descriptor = -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        self._check()
        count = max(0, min(len(into), len(self._data) - self._at))
        into[:count] = self._data[self._at : self._at + count]
        self._at += count
        return count

    def readall(self) -> bytes:
        self._check()
        rest = bytes(self._data[self._at :])
        self._at += len(rest)
        return rest

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        if base + offset < 0:
            raise OSError(22, "Invalid argument")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        self._check()
        return self._at

    def fileno(self) -> int:
        self._check()
        if self._make_descriptor is None:
            raise io.UnsupportedOperation("fileno: this file is in memory")
        if self._descriptor < 0:
            self._descriptor = self._make_descriptor(self._data)
            os.lseek(self._descriptor, self._at, os.SEEK_SET)
        return self._descriptor

    def isatty(self) -> bool:
        self._check()
        return False

    def close(self) -> None:
        if not self.closed:
            self._data = memoryview(b"")  # the cache's memory may go
            if self._descriptor >= 0:
                os.close(self._descriptor)
        super().close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")


class HeldFile(io.BufferedReader):
    """An open file over bytes in memory, as `open(name, "rb")` gives: an io.BufferedReader.

    Args:
        data: its content; a view stays in use until the file is closed.
        name: what `name` says.
        descriptor: makes one of the data for who asks for it, as memory_descriptor(); None: there
            is none, and fileno() raises io.UnsupportedOperation.

    Attributes:
        size: bytes in all (fsspec's files have it).
    """

    def __init__(
        self,
        data: bytes | memoryview,
        name: Any,
        descriptor: Callable[[Any], int] | None = None,
    ) -> None:
        self.size = len(data)
        super().__init__(_Bytes(data, name, descriptor))


def memory_descriptor(data: bytes | memoryview) -> int:
    """A descriptor of a file in memory that holds a copy, at its beginning, for reading only."""
    writable = os.memfd_create("coordl", os.MFD_CLOEXEC)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(writable, rest) :]
        return _os_open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
