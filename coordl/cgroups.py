"""What control groups grant this process: in a container less than the machine has.

Both versions of control groups are looked at, and all groups above this process's own that can be
seen from here: the tightest binds. Of both packages; it imports nothing of either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 60  # what version 1 says of a group without a limit is just below 2^63


def cpu_quota(process: str = "/proc/self", root: str = "/") -> float | None:
    """Cores' worth of time, None without a limit.

    Args:
        process, root: where /proc/self and the file system are; others are for tests.
    """
    return _tightest("cpu", _quota_of, process, root)


def memory_limit(process: str = "/proc/self", root: str = "/") -> int | None:
    """Bytes, page cache included; None without a limit. Arguments as of `cpu_quota`."""
    found = _tightest("memory", _limit_of, process, root)
    return None if found is None else int(found)


def _tightest(
    controller: str, limit_of: Callable[[Path], float | None], process: str, root: str
) -> float | None:
    try:
        groups = Path(process, "cgroup").read_text().splitlines()
        mounts = Path(process, "mountinfo").read_text().splitlines()
    except OSError:
        return None
    found = [
        limit
        for folder in _group_folders(groups, mounts, controller)
        if (limit := limit_of(Path(root, folder.lstrip("/")))) is not None
    ]
    return min(found, default=None)


def _group_folders(groups: list[str], mounts: list[str], controller: str) -> Iterator[str]:
    """The folders of this process's groups and of all above them, as far as mounted."""
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in mounts:
            left, _, right = mount.partition(" - ")
            base, place = (unescaped(field) for field in left.split()[3:5])
            kind, *_, options = right.split()
            if kind != ("cgroup" if controllers else "cgroup2"):
                continue
            if controllers and controller not in options.split(","):
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


def _limit_of(folder: Path) -> float | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = (folder / name).read_text().strip()
            if limit != "max" and 0 < int(limit) < _UNLIMITED:
                return int(limit)
        except (OSError, ValueError):
            continue
    return None


def unescaped(field: str) -> str:
    """A path of mountinfo, where blanks and backslashes are octal."""
    plain = field.encode(errors="surrogateescape")
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), plain).decode(
        errors="surrogateescape"
    )
