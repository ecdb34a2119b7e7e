"""A process tree with slow storage and little page cache, and what it read from the device.

Control groups of version 1 (blkio, memory), which root may make. The kernel's limit counts a
process's own memory too, which comes and goes: a thread keeps the limit at the most that this has
been and the page cache asked for. So the cache has at least that, and in quiet moments some more.
Who needs more of its own than it ever had waits for that thread: nobody is killed for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType

from dsanalyzer.measure.throttle import ReadThrottle

_ROOT = Path("/sys/fs/cgroup/memory")
_STEP_S = 0.02


class LimitsError(Exception):
    """Limits cannot be had here; says why."""


class Limits:
    """Context manager around one contender's run.

    Args:
        data: a folder on the device to be limited.
        bytes_per_s: reads, at most.
        page_cache_bytes: what the group may keep of files.
        name: tells several at a time apart.
    """

    def __init__(
        self, data: Path, bytes_per_s: float, page_cache_bytes: int, name: str = ""
    ) -> None:
        if not os.access(_ROOT / "memory.limit_in_bytes", os.W_OK):
            raise LimitsError("needs memory and blkio control groups (version 1) and root")
        self._page_cache = page_cache_bytes
        self._throttle = ReadThrottle(str(data), bytes_per_s, name)
        if self._throttle.method != "blkio cgroup":
            raise LimitsError("reads of this device cannot be limited by blkio")
        self._group = _ROOT / f"coordl-benchmark-{os.getpid()}{name}"
        self._most_own = 0
        self._limited = False
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def join(self) -> None:
        """Puts the calling process in (between fork and exec)."""
        self._throttle.join()
        (self._group / "cgroup.procs").write_text(str(os.getpid()))

    def device_bytes(self) -> int:
        """Read from the device so far."""
        return self._throttle.device_read_bytes() or 0

    def page_cache_bytes(self) -> int:
        """Held of files now, shared memory left out."""
        statistics = dict(
            line.split() for line in (self._group / "memory.stat").read_text().splitlines()
        )
        return int(statistics["cache"]) - int(statistics["shmem"])

    def begin(self, anew: bool = False) -> None:
        """Limits the page cache from now on. Before, only the processes' own memory is learnt;
        `anew`: which is forgotten, where many start and then have less."""
        if anew and not self._limited:
            self._most_own = 0
        self._limited = True

    def _keep(self) -> None:
        limit = self._group / "memory.limit_in_bytes"
        while not self._ended.wait(_STEP_S):
            usage = int((self._group / "memory.usage_in_bytes").read_text())
            self._most_own = max(self._most_own, usage - self.page_cache_bytes())
            if self._limited:
                with contextlib.suppress(OSError):  # it cannot be shrunk that far that fast
                    limit.write_text(str(self._most_own + self._page_cache))

    def __enter__(self) -> Limits:
        self._group.mkdir(exist_ok=True)
        (self._group / "memory.oom_control").write_text("1")
        self._keeper.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._keeper.join()
        self._throttle.close()
        with contextlib.suppress(OSError):
            self._group.rmdir()
