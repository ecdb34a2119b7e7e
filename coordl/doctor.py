"""What this machine gives caches and loaders, and what to change: printed by `coordl doctor`."""

from __future__ import annotations

import ctypes.util
import os
import resource
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from coordl import _native
from coordl.cgroups import cpu_quota
from coordl.fetch.budget import format_bytes

_GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """One fact.

    Attributes:
        advice: what to change; empty where nothing needs to.
        commands: that do so, one line each, to be copied as they are.
    """

    name: str
    value: str
    advice: str = ""
    commands: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Finding]:
    """Facts about memory, cores and libraries, in the order of how often they are the cause."""
    return [*_memory(), _cores(), _descriptors(), *_pages(), _libjpeg(), _formats(), _torch()]


def _memory() -> Iterator[Finding]:
    limits = _native.memory_limits()
    directory = _native.arena_directory()

    def describe(limit: str) -> str:
        size, free = limits[f"{limit}_bytes"], limits[f"{limit}_free_bytes"]
        if size is None or free is None:
            return "no limit"
        return f"{format_bytes(int(free))} free of {format_bytes(int(size))}"

    shm = limits["shm_bytes"]
    small = shm is not None and int(shm) < _GIB
    yield Finding(
        f"shared memory ({directory})",
        describe("shm"),
        "small; one of these enlarges it, on a machine and in a container:" if small else "",
        (f"mount -o remount,size=50% {directory}", "docker run --shm-size=8g ...") if small else (),
    )
    yield Finding("memory cgroup", describe("cgroup"))
    yield Finding("memory", describe("memory"))
    allowed = int(limits["allowed_bytes"] or 0)
    yield Finding(
        "largest cache now",
        format_bytes(allowed),
        f"what binds is: {limits['limit']}." if allowed < _GIB else "",
    )


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    if quota is not None and quota < cores:
        return Finding(
            "cores",
            f"{cores} by affinity, {quota:g} by cgroup quota",
            "more workers than the quota are throttled: use as many as the quota.",
        )
    return Finding("cores", f"{cores} of {os.cpu_count()} by affinity")


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding(
        "open files",
        f"{soft} of {hard}",
        "torch passes tensors by descriptor and may run out; this raises the limit:"
        if 0 <= soft < 4096
        else "",
        (f"ulimit -n {min(hard, 65536)}",) if 0 <= soft < 4096 else (),
    )


def _pages() -> Iterator[Finding]:
    folder = Path("/sys/kernel/mm/transparent_hugepage")

    def chosen(name: str) -> str:
        try:
            return (folder / name).read_text().partition("[")[2].partition("]")[0]
        except OSError:
            return "unknown"

    # What decides for caches is the mount's huge=; shmem_enabled only where it denies or forces.
    directory = _native.arena_directory()
    shmem, mount = chosen("shmem_enabled"), _huge_option(directory)
    granted = shmem == "force" or (shmem != "deny" and mount in ("always", "within_size"))
    yield Finding(
        "huge pages",
        f"private memory: {chosen('enabled')}, caches: {'granted' if granted else 'not granted'} "
        f"(huge={mount}, shmem_enabled {shmem})",
        "" if granted else "as root, this makes reads of caches cheaper:",
        () if granted else (f"mount -o remount,huge=within_size {directory}",),
    )
    nodes = _native.numa_nodes()
    if nodes > 1:
        yield Finding("NUMA nodes", f"{nodes}; a cache's pages come from all in turn")


def _huge_option(directory: str) -> str:
    """The huge= option of the tmpfs that holds the directory; "never" is the kernel's default."""
    path = os.path.realpath(directory)
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    holding = [
        (place, right.split()[-1])
        for left, right in mounts
        if (place := left.split()[4]) == path or path.startswith(place.rstrip("/") + "/")
    ]
    # Of two mounts at one place the later one shows.
    options = max(enumerate(holding), key=lambda entry: (len(entry[1][0]), entry[0]))[1][1]
    chosen = [each.partition("=")[2] for each in options.split(",") if each.startswith("huge=")]
    return chosen[0] if chosen else "never"


def _libjpeg() -> Finding:
    library = ctypes.util.find_library("jpeg") or ctypes.util.find_library("turbojpeg")
    if library is None:
        return Finding(
            "libjpeg-turbo", "not found", "this installs it:", ("apt-get install libjpeg62-turbo",)
        )
    return Finding("libjpeg-turbo", library)


def _formats() -> Finding:
    ours = _native.formats()
    packages = {"png": "libdeflate-dev", "webp": "libwebp-dev"}
    missing = [package for name, package in packages.items() if name not in ours]
    return Finding(
        "formats decoded natively",
        ", ".join(ours),
        "Pillow decodes the rest now; install this, then build again:" if missing else "",
        (f"apt-get install {' '.join(missing)}",) if missing else (),
    )


def _torch() -> Finding:
    try:
        return Finding("torch", metadata.version("torch"))
    except metadata.PackageNotFoundError:
        return Finding(
            "torch", "not installed", "this installs it:", ("pip install 'torch>=2.13,<2.14'",)
        )
