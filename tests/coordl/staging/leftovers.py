"""What a process has open and mapped."""

from __future__ import annotations

import os


def slots_mapped() -> int:
    """How many slots and berths this process has mapped."""
    with open("/proc/self/maps") as maps:
        return sum("/memfd:coordl" in line for line in maps)


def descriptors() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:  # the one of listdir itself
            continue
    return found
