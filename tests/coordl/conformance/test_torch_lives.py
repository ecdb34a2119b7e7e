"""What a strict comparison with torch's loader found: memory, states, copies, devices."""

from __future__ import annotations

import copy
import dataclasses
import gc
import random
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import torch.utils.data
from conformance_data import Numbers

import coordl

pytestmark = pytest.mark.area("life of a batch")


class OverOneArray(Numbers):
    """Tensors of one array of NumPy's: storages of their own at one address."""

    def __getitem__(self, index: int) -> Any:
        array = np.arange(self.count * 1000) + index
        return {"part": array[:5000], "all": array, "again": array}


@pytest.mark.parametrize("workers", [0, 1])
def test_tensors_over_one_array_of_numpys_are_apart_as_torchs_are(workers: int) -> None:
    options: dict[str, Any] = {"batch_size": None, "num_workers": workers}
    ours = list(coordl.DataLoader(OverOneArray(), **options))
    stock = list(torch.utils.data.DataLoader(OverOneArray(), **options))
    for mine, theirs in zip(ours, stock, strict=True):
        for kept in (mine, theirs):
            if workers:
                kept["again"].zero_()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


class Uneven(torch.utils.data.Dataset):
    """One sample is large; each has something small beside it."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        large = torch.ones((8 << 20 if index == 0 else 24 << 10) // 4)
        return large, torch.full((6 << 10,), float(index))


def held() -> int:
    gc.collect()
    return sum(int(part.pss) for part in psutil.Process().memory_maps())


def test_minibatches_that_are_kept_take_what_they_are() -> None:
    loader = coordl.DataLoader(Uneven(), None, num_workers=1)
    before = held()
    kept = list(loader)
    assert held() - before < 80 << 20 and len(kept) == 60


class Large(Uneven):
    def __getitem__(self, index: int) -> Any:
        return torch.ones(4 << 20), torch.full((6 << 10,), float(index))


def test_who_keeps_a_small_tensor_does_not_keep_its_minibatch() -> None:
    loader = coordl.DataLoader(Large(), None, num_workers=1)
    before = held()
    kept = [small for _, small in loader]
    assert [int(small[0]) for small in kept] == list(range(60))
    # Seven slots of 16 MiB wait for the next epoch; sixty would be a gigabyte.
    assert held() - before < 250 << 20


def test_minibatches_are_the_cpus_whatever_the_default_device_is() -> None:
    for size in (10, 10_000):
        data = torch.utils.data.TensorDataset(torch.ones(8, size))
        passing = iter(coordl.DataLoader(data, 4, num_workers=1))
        with torch.device("meta"):
            assert [one.device.type for (one,) in passing] == ["cpu", "cpu"]


class Module(torch.nn.Module, torch.utils.data.Dataset):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(12, 2)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        return index


class Asking(Numbers):
    def state_dict(self, samples: int, again: bool) -> Any:
        raise AssertionError("nobody knows what to give")

    def load_state_dict(self, state: Any) -> None: ...


class Failing(Asking):
    def state_dict(self) -> Any:  # type: ignore[override]
        raise NotImplementedError("in another class")


@pytest.mark.parametrize("data", [Module(), Asking(), Failing()])
@pytest.mark.parametrize("workers", [0, 2])
def test_states_nobody_asked_for_disturb_nothing(data: Any, workers: int) -> None:
    loader = coordl.DataLoader(data, 4, num_workers=workers)
    assert len(list(loader)) == 3
    passing = iter(loader)
    next(passing)
    if type(data) is not Failing:
        assert loader.state_dict()["samples"] == 4
        return
    with pytest.raises((coordl.StateError, NotImplementedError), match="in another class"):
        loader.state_dict()


def drawn(samples: Any) -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(())), len(samples)]


def test_draws_in_a_collate_function_are_keyed_whatever_makes_the_samples() -> None:
    def begun(workers: int) -> Any:
        return coordl.DataLoader(Numbers(), 5, num_workers=workers, seed=4, collate_fn=drawn)

    whole = list(begun(0))
    assert whole == list(begun(1)) == list(begun(2)) and whole[0][:3] != whole[1][:3]
    first = begun(0)
    next(iter(first))
    for workers in (0, 2):
        rest = begun(workers)
        rest.load_state_dict(first.state_dict())
        assert list(rest) == whole[1:]


class Interrupted(Numbers):
    broken = False

    def __getitem__(self, index: int) -> Any:
        if index == 4 and not self.broken:
            self.broken = True
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_a_minibatch_ctrl_c_broke_into_is_lost_to_the_pass_and_not_to_a_resume() -> None:
    loader = coordl.DataLoader(Interrupted(), 4)
    passing = iter(loader)
    next(passing)
    with pytest.raises(KeyboardInterrupt):
        next(passing)
    rest = coordl.DataLoader(Numbers(), 4)
    rest.load_state_dict(loader.state_dict())
    assert [m[1].tolist() for m in rest] == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert next(passing)[1].tolist() == [8, 9, 10, 11]  # as torch goes on
    again = coordl.DataLoader(Numbers(), 4)
    again.load_state_dict(loader.state_dict())
    assert [m[1].tolist() for m in again] == []


def test_a_copy_of_a_loader_has_passes_of_its_own() -> None:
    loader = coordl.DataLoader(Numbers(), 4)
    passing = iter(loader)
    next(passing)
    other = copy.copy(loader)
    list(other)
    assert loader.state_dict()["samples"] == 4 and len(other.stats()["epochs"]) == 1


class NotCopied(coordl.DataLoader):
    def __copy__(self) -> Any:
        raise TypeError("not copied")

    def __getstate__(self) -> Any:
        return {}


def test_a_subclass_may_say_what_copying_means() -> None:
    loader = NotCopied(Numbers(), 4, num_workers=2, memory_format=torch.channels_last, seed=1)
    assert [m[1].tolist() for m in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Raising(Numbers):
    def __getitem__(self, index: int) -> Any:
        raise Frozen(7)


class Unsized(Numbers):
    def __len__(self) -> int:
        raise ValueError("no length")


def test_what_a_data_set_raises_comes_as_it_is() -> None:
    with pytest.raises(Frozen):
        next(iter(coordl.DataLoader(Raising(), 4)))
    loader = coordl.DataLoader(Unsized(), 4, sampler=range(8))
    assert [m[1].tolist() for m in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_pillows_lowered_limit_and_torchs_default_dtype_are_heeded(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from coordl import transforms as T

    loader = coordl.DataLoader(
        coordl.ImageFolder(pictures, T.Compose([T.Resize((8, 8)), T.ToTensor()])), 4
    )
    assert "native" in loader.plan()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "MAX_IMAGE_PIXELS is 1,000" in loader.plan()
    with pytest.raises(Image.DecompressionBombError):
        next(iter(loader))
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float64)
    assert "default dtype, torch.float64" in loader.plan()


def test_an_index_that_is_none_fails_at_its_place_in_native_passes(pictures: Path) -> None:
    from coordl import transforms as T

    folder = coordl.ImageFolder(pictures, T.Compose([T.Resize((8, 8)), T.ToTensor()]))
    sampler: Any = [0, 1, 2, "a", 4, 5]
    passing = iter(coordl.DataLoader(folder, 2, sampler=sampler, num_workers=2))
    assert next(passing)[1].tolist() == [0, 1]
    with pytest.raises(TypeError):
        next(passing)
    assert next(passing)[1].tolist() == [4, 5]


def test_arguments_of_another_kind_are_told() -> None:
    with pytest.raises(TypeError, match="not a NoneType"):
        coordl.DataLoader(Numbers()).load_state_dict(None)  # type: ignore[arg-type]
    streamed = coordl.DataLoader(torch.utils.data.ChainDataset([]), seed=3)
    assert "cannot key samples without an index" in streamed.plan()
