"""torch's warning of more workers than cores: only where workers are processes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch.utils.data
from recipe import train_transform

import coordl


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._utils.cpu_count", lambda: 1)


def warned(make: Any) -> list[tuple[str, str]]:
    """Text and file of torch's warnings while a loader is made and begins a pass."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        next(iter(make()))
    return [
        (str(each.message), each.filename) for each in seen if "will create" in str(each.message)
    ]


def test_native_threads_are_no_worker_processes(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    assert warned(lambda: coordl.DataLoader(data, 4, num_workers=3)) == []
    loader = coordl.DataLoader(data, 4)
    loader.check_worker_number_rationality = len  # as with torch, whoever wants it otherwise
    assert loader.check_worker_number_rationality is len


def test_of_worker_processes_torch_warns_as_ever(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    stock = warned(lambda: torch.utils.data.DataLoader(data, 4, num_workers=3))
    ours = warned(lambda: coordl.DataLoader(data, 4, num_workers=3, prep="python"))
    assert len(stock) == 2  # when it is made, and when a pass begins
    assert [text for text, _ in ours] == [text for text, _ in stock]
    assert ours[0] == stock[0]
