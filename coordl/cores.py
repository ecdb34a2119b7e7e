"""How many cores this process may use, and how many it gets: `num_workers="auto"`."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

# A measurement takes ROUNDS × ROUND_S; the best round counts, so that a hiccup of others does not.
_ROUNDS, _ROUND_S = 3, 0.01
_CHUNK = bytes(1 << 20)  # hashed without the GIL, some ms at a time


def usable_cores() -> int:
    """Cores by affinity and CPU quota, shared among the ranks of this machine; at least 1."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    if quota is not None:
        cores = min(cores, int(quota))
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")  # torchrun, Lightning, Accelerate set it
    return max(1, cores // max(1, int(ranks) if ranks.isdecimal() else 1))


def auto_workers(native: bool) -> tuple[int, str]:
    """What `num_workers="auto"` is here and now, and why.

    Native threads: the usable cores. Worker processes: as many of them as are free, which is
    measured in 30 ms. None in a process that may not have children.
    """
    cores = usable_cores()
    if native:
        return cores, f"{cores} usable core(s)"
    if multiprocessing.current_process().daemon:
        return 0, "this is a worker process itself"
    free = max(1, round(measure_cores(cores)))
    return free, f"{free} free of {cores} usable core(s)"


def measure_cores(threads: int) -> float:
    """Cores' worth of time that so many busy threads get now; at most their number."""
    if threads == 1:
        return 1.0
    with ThreadPoolExecutor(threads) as pool:
        rounds = (sum(pool.map(_share_of_a_core, range(threads))) for _ in range(_ROUNDS))
        return max(rounds)


def _share_of_a_core(_: int) -> float:
    wall, used = time.perf_counter(), time.thread_time()
    while (passed := time.perf_counter() - wall) < _ROUND_S:
        hashlib.blake2b(_CHUNK)
    return min(1.0, (time.thread_time() - used) / passed)


def cpu_quota(process: str = "/proc/self", root: str = "/") -> float | None:
    """Cores' worth of time the CPU control groups grant, None without a limit.

    Both versions of control groups are looked at, and all groups above this process's own that can
    be seen from here: the tightest binds.

    Args:
        process, root: where /proc/self and the file system are; others are for tests.
    """
    try:
        groups = Path(process, "cgroup").read_text().splitlines()
        mounts = Path(process, "mountinfo").read_text().splitlines()
    except OSError:
        return None
    found = [
        quota
        for folder in _group_folders(groups, mounts)
        if (quota := _quota_of(Path(root, folder.lstrip("/")))) is not None
    ]
    return min(found, default=None)


def _group_folders(groups: list[str], mounts: list[str]) -> Iterator[str]:
    """The folders of this process's CPU groups and of all above them, as far as mounted."""
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            left, _, right = mount.partition(" - ")
            base, place = (_unescaped(field) for field in left.split()[3:5])
            kind, *_, options = right.split()
            if kind != ("cgroup" if controllers else "cgroup2"):
                continue
            if controllers and "cpu" not in options.split(","):
                continue
            below = PurePosixPath(place) / _below(path, base)
            above = (below, *below.parents)
            yield from (str(folder) for folder in above if folder.is_relative_to(place))


def _below(path: str, base: str) -> str:
    """A group's path below what is mounted; the mount itself where the group is not in it."""
    inside = path == base or path.startswith(base.rstrip("/") + "/")
    if not inside or ".." in PurePosixPath(path).parts:
        return ""
    return path[len(base.rstrip("/")) :].lstrip("/")


def _quota_of(folder: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            if quota != "max" and int(quota) > 0:
                return int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None


def _unescaped(field: str) -> str:
    return field.encode().decode("unicode_escape") if "\\" in field else field
