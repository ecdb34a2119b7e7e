"""Slow storage where no control group may be had: an open waits as long as a slow disk would read.

One queue for all processes of the job, as one disk is: a shared file holds the time at which the
emulated disk is free again. Only bytes that are not resident cost time.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import time

from dsanalyzer.measure import residency


class Pacer:
    """Callable: delays the calling thread for the bytes of `path` that are not in memory."""

    def __init__(self, shared_file: str, bytes_per_s: float, subset_file: str) -> None:
        self._shared_file = shared_file
        self._bytes_per_s = bytes_per_s
        with open(subset_file) as file:
            self._data = {path for paths in json.load(file)["files"] for path in paths}
        self._pid = 0

    def _open(self) -> None:
        self._fd = os.open(self._shared_file, os.O_RDWR | os.O_CLOEXEC)
        self._clock = mmap.mmap(self._fd, 8)
        self._pid = os.getpid()

    def __call__(self, path: str) -> None:
        if path not in self._data:
            return
        if self._pid != os.getpid():  # record locks do not survive a fork: each process opens anew
            self._open()
        resident, total, _ = residency.resident_pages(path)
        cost_s = (total - resident) * residency.PAGE_BYTES / self._bytes_per_s
        if cost_s <= 0:
            return
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            # CLOCK_MONOTONIC is one clock for all processes of the machine.
            now = time.monotonic()
            free_at = max(now, struct.unpack("d", self._clock[:8])[0]) + cost_s
            self._clock[:8] = struct.pack("d", free_at)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        time.sleep(max(0.0, free_at - now))
