"""Fixtures of the staging tests: proof that nothing is left behind."""

from __future__ import annotations

import gc
import multiprocessing
import time
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
    deadline = time.monotonic() + 10
    while len(after := descriptors()) > len(before) and time.monotonic() < deadline:
        time.sleep(0.01)  # the threads behind multiprocessing's queues close their ends themselves
    assert not [name for name in after if "coordl" in name]
    assert len(after) <= len(before), after
