"""Fixtures of the staging tests: proof that nothing is left behind."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator

import pytest
from leftovers import descriptors, slots_mapped


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test: no more descriptors than before, no slot mapped, no child, no zombie."""
    gc.collect()
    before = descriptors()
    yield
    gc.collect()
    assert multiprocessing.active_children() == []
    assert slots_mapped() == 0
    after = descriptors()
    assert not [name for name in after if "coordl" in name]
    assert len(after) <= len(before), after
