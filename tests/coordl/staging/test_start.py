"""Workers begin with a data set that was pickled once, and with samples that are arrays."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import staged_data as data
import torch
from same import assert_same

import coordl
from coordl.staging import paths
from coordl.staging.paths import SampleList
from coordl.staging.ship import ship


class Counted(data.Structures):
    """Writes a letter whenever it is pickled."""

    def __init__(self, log: str) -> None:
        super().__init__("tuple")
        self.log = log

    def __getstate__(self) -> dict[str, Any]:
        with open(self.log, "a") as file:
            file.write("p")
        return vars(self)


@pytest.fixture
def pictures(tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(paths, "WORTH_IT", 1)
    for number in range(9):
        home = tmp_path / "data" / f"class{number % 2}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number % len(photos)], home / f"{number}.jpg")
    odd = os.fsdecode(os.fsencode(tmp_path / "data" / "class1") + b"/\xff.jpg")
    shutil.copyfile(photos[0], odd)
    return coordl.ImageFolder(tmp_path / "data", to_small)


def to_small(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image.resize((8, 8))))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_data_set_is_pickled_once_for_all_workers(tmp_path: Path, method: str) -> None:
    log = tmp_path / "log"
    loader = coordl.DataLoader(Counted(str(log)), 4, num_workers=3, multiprocessing_context=method)
    assert_same(list(loader), list(torch.utils.data.DataLoader(data.Structures("tuple"), 4)))
    assert log.read_text() == "p"


class WithTensor(data.Structures):
    """Holds what is sent to one process: memory shared by a descriptor."""

    def __init__(self) -> None:
        super().__init__("tuple")
        self.table = torch.arange(5)


def test_a_data_set_with_tensors_is_sent_as_torch_sends_it() -> None:
    assert ship(WithTensor()) is None
    loader = coordl.DataLoader(WithTensor(), 4, num_workers=2, multiprocessing_context="spawn")
    assert_same(list(loader), list(torch.utils.data.DataLoader(data.Structures("tuple"), 4)))


def test_what_cannot_be_pickled_is_torchs_to_refuse(nothing_left: None) -> None:
    dataset = data.Structures("tuple")
    dataset.broken = lambda: None  # type: ignore[attr-defined]
    loader = coordl.DataLoader(dataset, 4, num_workers=1, multiprocessing_context="spawn")
    with pytest.warns(UserWarning, match="Got pickle error"), pytest.raises(AttributeError):
        iter(loader)


def test_a_sample_list_reads_as_the_list_does(nothing_left: None) -> None:
    odd = os.fsdecode(b"/a/\xff\xfe.jpg")
    plain = [("/a/b.jpg", 0), (odd, 2), ("", 1), ("/größe.png", -(2**62))]
    shared = SampleList.of(plain)
    assert list(shared) == plain and len(shared) == 4
    assert shared[-1] == plain[-1] and shared[np.int64(1)] == plain[1] and shared[1:] == plain[1:]
    assert list(shared.paths) == [path for path, _ in plain]
    for wrong in (4, -5):
        with pytest.raises(IndexError):
            shared[wrong]
    again = pickle.loads(pickle.dumps(shared))
    assert list(again) == plain
    assert list(pickle.loads(pickle.dumps(again))) == plain
    with pytest.raises(TypeError):
        SampleList.of([("/a", "no number")])  # type: ignore[list-item]


SLOW = pytest.mark.slow  # a new process imports everything


@pytest.mark.parametrize("method", ["fork", "spawn", pytest.param("forkserver", marks=SLOW)])
@pytest.mark.parametrize("subset", [False, pytest.param(True, marks=SLOW)])
@pytest.mark.parametrize("cache", [None, pytest.param("4MiB", marks=SLOW)])
def test_folders_give_the_same_samples_through_arrays(
    pictures: Any, method: str, subset: bool, cache: str | None
) -> None:
    dataset = torch.utils.data.Subset(pictures, [3, 1, -1, 9, 0, 4]) if subset else pictures
    more: dict[str, Any] = {"num_workers": 2, "multiprocessing_context": method}
    loader = coordl.DataLoader(dataset, 2, prep="python", cache=cache, **more)
    expected = list(torch.utils.data.DataLoader(dataset, 2))
    assert_same(list(loader), expected)
    assert type(pictures.samples) is list


def test_lists_are_made_anew_only_when_samples_changed(pictures: Any, nothing_left: None) -> None:
    shared = paths.SharedSamples()
    first = shared.view(pictures).samples
    assert shared.view(pictures).samples is first
    pictures.samples[0] = (pictures.samples[1][0], 7)
    assert shared.view(pictures).samples[0] == pictures.samples[0]
    assert shared.view(data.Structures("tuple")).kind == "tuple"
