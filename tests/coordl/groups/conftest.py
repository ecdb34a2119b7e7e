"""Fixtures of the groups' tests: pictures, a shared-memory directory that must end up empty."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from group_jobs import PICTURES

from coordl import _native


@pytest.fixture
def folder(class_folder: Callable[..., Path]) -> Path:
    """An image folder of 22 photographs in 2 classes."""
    return class_folder(PICTURES)


@pytest.fixture(autouse=True)
def shm_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's rings are; empty afterwards, and no descriptor more than before."""
    directory = Path(tempfile.mkdtemp(prefix="coordl-test-", dir="/dev/shm"))
    monkeypatch.setenv("COORDL_SHM_DIR", str(directory))
    monkeypatch.delenv("COORDL_GROUP", raising=False)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    try:
        yield directory
        _native._signal_at({})
        gc.collect()
        assert sorted(os.listdir(directory)) == []
        assert len(os.listdir("/proc/self/fd")) <= before
    finally:
        shutil.rmtree(directory)
