"""Slow storage for a job: real throttling where the machine allows it, else the tool's own pacing.

Real throttling is a blkio control group (cgroup v1) that limits the reads of the job's processes on
the device that holds the data; it needs write access to the group tree, which root has. Elsewhere
the hooks delay the open of a file that is not resident (hooks/pacing.py), and every output says
"pacing" instead of "blkio cgroup". DSANALYZER_NO_CGROUP=1 asks for pacing everywhere.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup/blkio")
_PREFIX = "dsanalyzer-"
NEARLY = 0.9  # of a limit: then it is what binds, and not the disk behind it
_REMOVAL_S = 2.0  # a killed process stays in its group until the kernel has taken it down


def disk_of(path: str) -> str | None:
    """`major:minor` of the whole disk under `path`, or None (network or memory file system)."""
    number = os.stat(path).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    device = Path("/sys/dev/block") / name
    if os.major(number) == 0 or not device.exists():
        return None
    if (device / "partition").exists():  # limits are set on the disk, not on its partitions
        name = (device.resolve().parent / "dev").read_text().strip()
    return name


def reap_stale() -> None:
    """Remove groups whose owner died before it could."""
    for group in _ROOT.glob(_PREFIX + "*"):
        owner = group.name.removeprefix(_PREFIX).partition(".")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            with contextlib.suppress(OSError):
                group.rmdir()


class ReadThrottle:
    """A control group that limits reads to `bytes_per_s`; context manager.

    `name` tells several of one process apart: each has its own limit.
    `method` is "blkio cgroup" or "pacing"; with "pacing" nothing is limited here.
    """

    def __init__(self, data_path: str, bytes_per_s: float, name: str = "") -> None:
        self.bytes_per_s = bytes_per_s
        self.method = "pacing"
        self._group: Path | None = None
        disk = disk_of(data_path)
        if disk is None or not os.access(_ROOT, os.W_OK) or os.environ.get("DSANALYZER_NO_CGROUP"):
            return
        group = _ROOT / (f"{_PREFIX}{os.getpid()}" + (f".{name}" if name else ""))
        try:
            group.mkdir(exist_ok=True)
            (group / "blkio.throttle.read_bps_device").write_text(f"{disk} {int(bytes_per_s)}")
        except BaseException as error:
            with contextlib.suppress(OSError):
                group.rmdir()
            if isinstance(error, OSError):
                return
            raise
        self._group, self._disk = group, disk
        self.method = "blkio cgroup"

    def join(self) -> None:
        """Put the calling process into the group (call between fork and exec)."""
        if self._group is not None:
            (self._group / "cgroup.procs").write_text(str(os.getpid()))

    def device_read_bytes(self) -> int | None:
        """Bytes the device delivered to the group so far; None without a group."""
        if self._group is None:
            return None
        report = (self._group / "blkio.throttle.io_service_bytes").read_text()
        for line in report.splitlines():
            fields = line.split()
            if fields[:2] == [self._disk, "Read"]:
                return int(fields[2])
        return 0

    def close(self) -> None:
        if self._group is None:
            return
        patience = time.monotonic() + _REMOVAL_S
        while self._group.exists():
            for pid in (self._group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):  # a straggler goes back to the root group
                    (_ROOT / "cgroup.procs").write_text(pid)
            try:
                self._group.rmdir()
            except OSError:  # a process on its way out; the next run removes what is left
                if time.monotonic() > patience:
                    break
                time.sleep(0.01)
        self._group = None

    def __enter__(self) -> ReadThrottle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
