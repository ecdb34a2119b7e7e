"""What coordl does not recognise runs as torch runs it; `seed` keys its draws all the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from recipe import native_threads, train_transform

import coordl
from coordl import transforms as T
from coordl.fetch.folder import find_folder


class Jitter:
    """A transform of the user's: draws from all three global generators."""

    def __call__(self, picture: Any) -> torch.Tensor:
        value = torch.rand(2) + random.random() + float(np.random.rand())
        return torch.cat([value, torch.tensor([picture.width, picture.height])])


def user_transform() -> T.Compose:
    return T.Compose([T.RandomResizedCrop(16), Jitter()])


def same(left: list[Any], right: list[Any]) -> bool:
    return all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(
    ("transform", "extra"), [(Jitter(), {}), (user_transform(), {"prep": "python"})]
)
def test_an_unknown_transform_gives_exactly_what_torch_gives(
    folder: Path, transform: Any, extra: dict[str, Any]
) -> None:
    data = coordl.ImageFolder(folder, transform)
    runs = []
    for kind, options in ((torch.utils.data.DataLoader, {}), (coordl.DataLoader, extra)):
        torch.manual_seed(2)
        random.seed(2)
        np.random.seed(2)
        loader = kind(data, 4, shuffle=True, **options)
        runs.append([list(loader), list(loader)])
    assert same(runs[0][0], runs[1][0]) and same(runs[0][1], runs[1][1])
    assert native_threads() == []


def test_iterable_data_sets_run_as_ever() -> None:
    class Counting(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(range(10))

    loader = coordl.DataLoader(Counting(), 4, seed=1)
    assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_samples_without_batches_run_as_ever(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    loader = coordl.DataLoader(data, None)
    assert [target for _, target in loader] == data.targets
    assert "batch_size=None" in loader.plan()


def test_seed_keys_python_draws_with_any_number_of_workers(folder: Path) -> None:
    data = coordl.ImageFolder(folder, user_transform())
    runs = []
    for workers in (0, 1, 2):
        loader = coordl.DataLoader(data, 4, num_workers=workers, seed=5)
        runs.append([list(loader), list(loader)])
    assert not same(runs[0][0], runs[0][1])
    assert all(same(run[0], runs[0][0]) and same(run[1], runs[0][1]) for run in runs)


def test_seed_keys_persistent_workers_by_epoch(folder: Path) -> None:
    data = coordl.ImageFolder(folder, user_transform())
    plain = coordl.DataLoader(data, 4, seed=5)
    kept = coordl.DataLoader(data, 4, seed=5, num_workers=1, persistent_workers=True)
    for _ in range(3):
        assert same(list(plain), list(kept))


def test_keyed_draws_leave_the_scripts_own_draws_alone(folder: Path) -> None:
    data = coordl.ImageFolder(folder, user_transform())
    after = []
    for loader in (
        torch.utils.data.DataLoader(Numbers(), 4),
        coordl.DataLoader(data, 4, seed=5),
    ):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        list(loader)
        after.append((float(torch.rand(())), random.random(), float(np.random.rand())))
    assert after[0] == after[1]


class Numbers(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 22

    def __getitem__(self, index: int) -> int:
        return index


def test_stats_count_samples_of_python_loaders(folder: Path) -> None:
    for workers in (0, 1):
        loader = coordl.DataLoader(Numbers(), 4, num_workers=workers, drop_last=True)
        list(loader)
        figures = loader.stats()
        assert figures["total"]["samples"] == 20
        assert figures["total"]["wait_s"] > 0
        assert figures["epochs"][0]["native"] is False
        assert figures["cache_bytes"] is None


def test_a_subclass_keeps_its_attributes_and_its_iteration(folder: Path) -> None:
    class Mine(coordl.DataLoader):
        def __init__(self, *arguments: Any, extra: int, **more: Any) -> None:
            self.extra = extra
            super().__init__(*arguments, **more)

    loader = Mine(coordl.ImageFolder(folder, user_transform()), 4, extra=7, seed=1, num_workers=1)
    assert (loader.extra, loader.seed, len(list(loader))) == (7, 1, 6)


def test_attributes_are_read_when_a_pass_begins(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    loader = coordl.DataLoader(data, 4)
    next(iter(loader))
    data.transform = user_transform()
    assert next(iter(loader))[0].shape == (4, 4)
    assert [epoch["native"] for epoch in loader.stats()["epochs"]] == [True, False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"collate_fn": list}, "collate_fn is not torch's default"),
        ({"batch_size": None}, "batch_size=None"),
        ({"num_workers": 1, "worker_init_fn": print}, "worker_init_fn is given"),
    ],
)
def test_native_that_cannot_be_says_why(folder: Path, change: Any, reason: str) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    with pytest.raises(ValueError, match=reason):
        coordl.DataLoader(data, **{"batch_size": 4, **change}, prep="native")


def test_native_refuses_an_unknown_transform_by_name(folder: Path) -> None:
    with pytest.raises(ValueError, match="Jitter"):
        coordl.DataLoader(coordl.ImageFolder(folder, user_transform()), prep="native")


def test_python_prep_can_be_asked_for(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    torch.manual_seed(4)
    expected = list(torch.utils.data.DataLoader(data, 4))
    torch.manual_seed(4)
    assert same(list(coordl.DataLoader(data, 4, prep="python")), expected)


# -- which data sets are image folders -----------------------------------------------------------


def torchvisions(name: str, loader_name: str = "default_loader") -> type:
    """A stand-in with the type name and module of torchvision's class, which is all we look at."""

    def load(path: str) -> Any:
        raise AssertionError("the stock loader is not called for a native pass")

    load.__name__ = load.__qualname__ = loader_name
    load.__module__ = "torchvision.datasets.folder"

    def fill(self: Any, folder: Path, transform: Any) -> None:
        ours = coordl.ImageFolder(folder)
        self.root, self.samples, self.transform = ours.root, ours.samples, transform
        self.target_transform, self.loader = None, load

    members = {
        "__init__": fill,
        "__len__": lambda self: len(self.samples),
        "__module__": "torchvision.datasets.folder",
    }
    return type(name, (torch.utils.data.Dataset,), members)


@pytest.mark.parametrize("name", ["ImageFolder", "DatasetFolder"])
@pytest.mark.parametrize("loader", ["default_loader", "pil_loader"])
def test_torchvisions_folders_are_known_by_type_and_module(
    folder: Path, name: str, loader: str
) -> None:
    data = torchvisions(name, loader)(folder, train_transform())
    ours = coordl.ImageFolder(folder, train_transform())
    assert same(
        list(coordl.DataLoader(data, 4, seed=1, prep="native")),
        list(coordl.DataLoader(ours, 4, seed=1, prep="native")),
    )


def test_subclasses_and_own_loaders_are_left_alone(folder: Path) -> None:
    class Mine(coordl.ImageFolder):
        pass

    assert "Mine" in str(find_folder(Mine(folder)))
    stock = torchvisions("ImageFolder")
    assert "Other" in str(find_folder(type("Other", (stock,), {})(folder, None)))
    other = torchvisions("ImageFolder", "accimage_loader")(folder, None)
    assert "its loader is accimage_loader" in str(find_folder(other))
    own = coordl.ImageFolder(folder, loader=str.upper)
    assert "its loader is str.upper" in str(find_folder(own))
