"""Every test here has a shared-memory directory of its own, and must leave nothing behind."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from kills import code_of, fork

from coordl import _native

if TYPE_CHECKING:
    from moody_server import MoodyServer


def _open_descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def shm_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's arenas are; empty afterwards, no descriptor or child more than before."""
    resource_tracker.ensure_running()  # spawn starts it once and keeps it
    directory = Path(tempfile.mkdtemp(prefix="coordl-test-", dir="/dev/shm"))
    monkeypatch.setenv("COORDL_SHM_DIR", str(directory))
    gc.collect()
    descriptors, children, shm = _open_descriptors(), _children(), set(os.listdir("/dev/shm"))
    try:
        yield directory
        _native._signal_at({})
        gc.collect()
        assert sorted(os.listdir(directory)) == []
        assert _open_descriptors() == descriptors
        assert _children() == children
        ours = {name for name in os.listdir("/dev/shm") if "coordl-test" not in name}
        assert not any(name.startswith(f"coordl.{os.geteuid()}.t-") for name in ours - shm)
    finally:
        shutil.rmtree(directory)


def _exit_code(work: Callable[[], object]) -> int:
    """Runs `work` in a forked child. 0, minus the signal that ended it, or 1 when it raised."""
    return code_of(fork(work))


@pytest.fixture
def in_fork() -> Callable[[Callable[[], object]], int]:
    return _exit_code


@pytest.fixture
def in_process() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs Python source in a new interpreter that has inherited nothing."""

    def run(source: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, timeout=120
        )

    return run


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty again afterwards."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    yield fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def server(shm_dir: Path) -> Iterator[MoodyServer]:
    from fsspec.implementations.http import HTTPFileSystem
    from moody_server import MoodyServer

    server = MoodyServer()
    yield server
    server.close()
    HTTPFileSystem.clear_instance_cache()
    gc.collect()
