"""Fixtures of the loader's tests: a folder of photographs, proof that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recipe import native_threads

CLASSES = 3
PICTURES = 22


@pytest.fixture
def folder(class_folder: Callable[..., Path]) -> Path:
    """An image folder: 22 photographs in 3 classes."""
    return class_folder(PICTURES, CLASSES)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test: as many descriptors as before, and no thread of ours."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert native_threads() == []
    after = set(os.listdir("/proc/self/fd"))
    assert len(after) <= len(before), after - before
