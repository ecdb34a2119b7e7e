"""Fixtures of the loader's tests: a folder of photographs, proof that nothing is left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from recipe import native_threads

CLASSES = 3
PICTURES = 22


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    """An image folder: 22 photographs (copies of the four) in 3 classes."""
    root = tmp_path / "pictures"
    for number in range(PICTURES):
        home = root / f"class{number % CLASSES}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number % len(photos)], home / f"{number:03}.jpg")
    return root


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test: as many descriptors as before, and no thread of ours."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert native_threads() == []
    after = set(os.listdir("/proc/self/fd"))
    assert len(after) <= len(before), after - before
