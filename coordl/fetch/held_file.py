"""A file whose bytes are in memory: what readers get that ask for an open file.

Reads copy from the bytes themselves (a view of the cache, usually), seeking costs nothing, and
there is no descriptor: who insists on one (mmap, `numpy.fromfile`) gets that of the real file,
opened only then.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


class _Bytes(io.RawIOBase):
    def __init__(self, data: bytes | memoryview, name: Any, real: Callable[[], Any] | None) -> None:
        self.name = name
        self.mode = "rb"
        self._data = memoryview(data)
        self._at = 0
        self._open_real = real
        self._real: Any = None

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
        if self._open_real is None:
            raise io.UnsupportedOperation("fileno: this file is in memory")
        if self._real is None:
            self._real = self._open_real()
        return int(self._real.fileno())

    def isatty(self) -> bool:
        self._check()
        return False

    def close(self) -> None:
        if not self.closed:
            self._data = memoryview(b"")  # the cache's memory may go
            if self._real is not None:
                self._real.close()
        super().close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")


class HeldFile(io.BufferedReader):
    """An open file over bytes in memory, as `open(name, "rb")` gives: an io.BufferedReader.

    Args:
        data: its content; a view stays in use until the file is closed.
        name: what `name` says.
        real: opens the file on storage for who asks for its descriptor; None: there is none, and
            fileno() raises io.UnsupportedOperation.

    Attributes:
        size: bytes in all (fsspec's files have it).
    """

    def __init__(
        self, data: bytes | memoryview, name: Any, real: Callable[[], Any] | None = None
    ) -> None:
        self.size = len(data)
        super().__init__(_Bytes(data, name, real))
