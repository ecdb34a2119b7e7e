"""What kind of storage a file lies on: a disk, memory, or something behind a server or daemon.

`/proc/PID/io` counts what a process asks the block layer for. A network or FUSE mount asks a server
or a daemon instead, and nothing is counted; there the pages that were not in memory when a file was
opened are the evidence, since they can have come from nowhere else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from coordl.cgroups import unescaped
from dsanalyzer.measure import objects

_MEMORY = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
_FSSPEC = "fsspec"
_SERVED = (
    "fuse", "nfs", "cifs", "smb", "9p", "virtiofs", "ceph", "lustre", "gpfs", "beegfs", "afs",
    "glusterfs", "orangefs", "pvfs2", _FSSPEC,
)  # fmt: skip


@dataclass(frozen=True)
class Mount:
    """Where a file system is mounted, and its type as the kernel calls it."""

    place: str
    type: str

    @property
    def in_memory(self) -> bool:
        """Nothing on it can be taken out of memory."""
        return self.type in _MEMORY

    @property
    def objects(self) -> bool:
        """Objects that are read through fsspec; `place` is where from."""
        return self.type == _FSSPEC

    @property
    def served(self) -> bool:
        """A server or a daemon reads for it, so that nobody counts reads as the job's."""
        return self.type.startswith(_SERVED)


def mount_of(path: str) -> Mount:
    """The mount that `path` lies on; of an object of a network, what fsspec reads it from."""
    if "://" in (url := objects.name_of(path)):
        return Mount("/".join(url.split("/")[:3]), _FSSPEC)
    real = os.path.realpath(path)
    best = Mount("/", "unknown")
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            place = unescaped(before.split()[4])
            inside = real == place or real.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(
                best.place
            ):  # of two at one place the later lies on top
                best = Mount(place, after.split()[0])
    return best


def remarks(path: str) -> list[str]:
    """What the reader of a result must know of the storage that `path` lies on."""
    mount = mount_of(path)
    if mount.in_memory:
        return [
            f"the data lies in memory ({mount.type} on {mount.place}): nothing of it can be made "
            "cold, and no fetch stall of it be measured. Profile it where a training will read it"
        ]
    if mount.objects:
        return [
            f"the data is read from {mount.place} through fsspec. What is called in memory was "
            "served from there by the tool; what is called storage was asked for over the "
            "network, as the job asks (a cache on the way may have had it). What the job asks "
            "about objects by itself (info, exists) counts as prep; what opening one asks is of "
            "fetch, and not in the rate of storage alone"
        ]
    if mount.served:
        return [
            f"the data lies behind a server or daemon ({mount.type} on {mount.place}), which may "
            "cache it: cold means not in this machine's page cache. Reads are counted by the pages "
            "that were not in memory when files were opened"
        ]
    return []
