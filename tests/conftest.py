"""Fixtures every test may use."""

from __future__ import annotations

import gc
import signal
from pathlib import Path
from types import ModuleType

import pytest

# Started in the background of a shell, we and our children would ignore the Ctrl-C some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).parent / "data"


def pytest_collection_finish() -> None:
    """Many tests collect garbage, to see what they leave. Torch and whatever else was imported is
    not theirs: to look through it each time takes longer than the test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Real photographs as JPEG files, smallest side 300 px; licences in tests/data/LICENSES.md."""
    return sorted(DATA.glob("*.jpg"))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names without addresses: the same in every process that collects them."""
    return type(val).__name__ if " at 0x" in repr(val) else None


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """The real torchvision, also its CUDA build beside a CPU torch; skips where it is absent."""
    try:
        import usable_torchvision
    except ModuleNotFoundError as error:
        pytest.skip(f"torchvision is not installed: {error}")
    return usable_torchvision.module
