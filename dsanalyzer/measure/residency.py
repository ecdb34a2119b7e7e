"""Which bytes of a file are in memory, and how to put them there or take them out.

The ladder of evidence, strongest first (each rung says where it does not hold):

* `cachestat(2)` (Linux >= 6.5): exact in about a microsecond; reads zero through the lower layer of
  overlayfs and is refused for files one neither owns nor may write.
* `mincore(2)` over a mapping: right through overlayfs; claims everything is resident for files one
  neither owns nor may write.
* `/proc/PID/io` read_bytes: what the block layer was asked for, counted afterwards.

No rung needs root. An object of a network (objects.py) is in memory where it is marked as that and
the pages of the file that is kept of it are.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass

from dsanalyzer.measure import objects

PAGE_BYTES = mmap.PAGESIZE
_CACHESTAT = 451  # system call number, the same on every architecture that has it
_libc = ctypes.CDLL(None, use_errno=True)


class _Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _Cachestat(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    ]


def pages(size_bytes: int) -> int:
    """Whole pages a file of that size occupies in the page cache."""
    return -(-size_bytes // PAGE_BYTES)


def device_bytes(size_bytes: int) -> int:
    """Bytes the device delivers for a cold file of that size: whole pages."""
    return pages(size_bytes) * PAGE_BYTES


def _cachestat(fd: int) -> int | None:
    stat = _Cachestat()
    whole = _Range(0, 0)
    if _libc.syscall(_CACHESTAT, fd, ctypes.byref(whole), ctypes.byref(stat), 0) != 0:
        return None
    return int(stat.cached)


def _mincore(fd: int, size: int) -> int | None:
    with mmap.mmap(fd, size, access=mmap.ACCESS_COPY) as mapping:
        flags = (ctypes.c_ubyte * pages(size))()
        anchor = ctypes.c_char.from_buffer(mapping)
        failed = _libc.mincore(
            ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), flags
        )
        del anchor  # the mapping cannot close while it is exported
        return None if failed else sum(flag & 1 for flag in flags)


@dataclass(frozen=True)
class Residency:
    """How much of some files is in memory, and which rung of the ladder said so."""

    resident_pages: int
    total_pages: int
    method: str

    @property
    def share(self) -> float:
        return self.resident_pages / self.total_pages if self.total_pages else 0.0


def resident_pages(path: str) -> tuple[int, int, str]:
    """Pages of the file in memory, pages in all, and the method: cachestat, mincore or unknown.

    Of an object that is not marked the method is `mark`.
    """
    if objects.is_object(path) and not objects.in_memory(path):
        return 0, pages(os.path.getsize(path)), "mark"
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size == 0:
            return 0, 0, "cachestat"
        cached = _cachestat(fd)
        # Zero may be the truth or overlayfs hiding the lower file: let mincore confirm it.
        if cached:
            return min(cached, pages(size)), pages(size), "cachestat"
        if not (os.access(path, os.W_OK) or os.fstat(fd).st_uid == os.geteuid()):
            return 0, pages(size), "unknown"
        counted = _mincore(fd, size)
        if counted is None:
            return 0, pages(size), "unknown"
        return counted, pages(size), "cachestat" if cached == counted else "mincore"
    finally:
        os.close(fd)


def residency(paths: Iterable[str]) -> Residency:
    """Residency of many files together; the method is the weakest rung any of them needed."""
    order = ("cachestat", "mark", "mincore", "unknown")
    resident = total = worst = 0
    for path in paths:
        here, whole, method = resident_pages(path)
        resident, total, worst = resident + here, total + whole, max(worst, order.index(method))
    return Residency(resident, total, order[worst])


def evict(path: str) -> None:
    """Take one file's pages out of memory: write back, then posix_fadvise(DONTNEED). No root.

    Mapped or locked pages stay and the call still succeeds: prove it with `residency`.
    """
    if objects.is_object(path):
        objects.take_out(path)
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if _cachestat(fd):  # dirty pages survive the advice: write them back first
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def admit(path: str) -> None:
    """What has been read once stays in memory: of files the kernel sees to that."""
    if objects.is_object(path):
        objects.put(path)


def warm(path: str, buffer: bytearray) -> int:
    """Read the whole file through the page cache; returns its bytes."""
    admit(path)
    total = 0
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while count := os.readv(fd, [buffer]):
            total += count
    finally:
        os.close(fd)
    return total
