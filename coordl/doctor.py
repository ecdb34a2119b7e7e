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
    return [*_memory(), _cores(), _descriptors(), _huge_pages(), _libjpeg(), _formats(), _torch()]


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
    quota = _cpu_quota()
    if quota is not None and quota < cores:
        return Finding(
            "cores",
            f"{cores} by affinity, {quota:g} by cgroup quota",
            "more workers than the quota are throttled: use as many as the quota.",
        )
    return Finding("cores", f"{cores} of {os.cpu_count()} by affinity")


def _cpu_quota() -> float | None:
    """Cores the CPU cgroup grants, None without a quota."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        try:
            if controllers == "":
                text = Path("/sys/fs/cgroup" + path, "cpu.max").read_text().split()
                quota, period = text[0], text[1]
            elif "cpu" in controllers.split(","):
                folder = Path("/sys/fs/cgroup/cpu" + path)
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            else:
                continue
            if quota != "max" and int(quota) > 0:
                return int(quota) / int(period)
        except (OSError, ValueError, IndexError):
            continue
    return None


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


def _huge_pages() -> Finding:
    folder = Path("/sys/kernel/mm/transparent_hugepage")

    def chosen(name: str) -> str:
        try:
            return (folder / name).read_text().partition("[")[2].partition("]")[0]
        except OSError:
            return "unknown"

    shmem = chosen("shmem_enabled")
    return Finding(
        "huge pages",
        f"private memory: {chosen('enabled')}, shared memory: {shmem}",
        "as root, this makes reads of the cache cheaper:" if shmem == "never" else "",
        (f"echo advise > {folder}/shmem_enabled",) if shmem == "never" else (),
    )


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
