"""How much memory slots may still take here, and whether the kernel has killed for want of it."""

from __future__ import annotations

from pathlib import Path

from coordl import _native

# Left to everybody else, of the machine's or the control group's memory.
HEADROOM_BYTES = 256 << 20
HEADROOM_SHARE = 0.05


def room() -> int:
    """Bytes slots may still take. /dev/shm has no say: slots are not there."""
    limits = _native.memory_limits()
    rooms = []
    for name in ("cgroup", "memory"):
        total, free = limits[f"{name}_bytes"], limits[f"{name}_free_bytes"]
        if free is None:
            continue
        wanted = max(HEADROOM_BYTES, int(HEADROOM_SHARE * (total or free)))
        rooms.append(free - min(wanted, (total or free) // 4))
    return max(0, min(rooms, default=1 << 62))


def oom_kills() -> tuple[int, int]:
    """Out-of-memory kills so far: in this control group, and on the machine; 0 where unknown."""
    groups = 0
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            groups += _count(f"/sys/fs/cgroup{path}/memory.events", "oom_kill")
        elif "memory" in controllers.split(","):
            groups += _count(f"/sys/fs/cgroup/memory{path}/memory.oom_control", "oom_kill")
    return groups, _count("/proc/vmstat", "oom_kill")


def _count(path: str, name: str) -> int:
    for line in _lines(path):
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
