"""Fixtures every test may use."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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
        return _with_transforms()
    except ModuleNotFoundError as error:
        pytest.skip(f"torchvision is not installed: {error}")
    except RuntimeError:  # its compiled operators cannot load; transforms need none of them
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        return _with_transforms()


_kept: list[Any] = []  # a library's definitions end with the object


def _with_transforms() -> ModuleType:
    importlib.import_module("torchvision.transforms.v2")
    return importlib.import_module("torchvision")
