"""Tiers, policies and reading ahead change when bytes are read, never which bits come."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe import train_transform

import coordl
from coordl.delivery import native_epoch
from coordl.delivery.torchs_samplers import draws_alone


@pytest.fixture(autouse=True)
def arenas(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    home = tmp_path_factory.mktemp("arenas")
    monkeypatch.setenv("COORDL_SHM_DIR", str(home))
    yield home
    import gc

    gc.collect()
    assert [f.name for f in home.iterdir()] == []


def batches(folder: Path, epochs: int = 3, **more: Any) -> tuple[list[torch.Tensor], dict]:
    data = coordl.ImageFolder(folder, train_transform())
    generator = torch.Generator().manual_seed(5)
    arguments = {"shuffle": True, "num_workers": 2, "seed": 3, "generator": generator, **more}
    loader = coordl.DataLoader(data, 3, **arguments)
    images = [image for _ in range(epochs) for batch, _ in loader for image in batch]
    return images, loader.stats()


CACHES: dict[str, Any] = {
    "all in memory": lambda ssd: "200%",
    "half": lambda ssd: coordl.MinIOCache("50%"),
    "half at random": lambda ssd: coordl.MinIOCache("50%", admission="random", admission_seed=2),
    "memory and disk": lambda ssd: coordl.MinIOCache("30%", ssd=ssd, ssd_budget="30%"),
    "at random on both, packed": lambda ssd: coordl.MinIOCache(
        "30%", ssd=ssd, ssd_budget="40%", admission="random", form="packed"
    ),
    "all on the disk": lambda ssd: coordl.MinIOCache(0, ssd=ssd, form="packed", ssd_budget="200%"),
}


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("workers", [0, 2])
def test_bits_are_the_same_with_any_cache(
    folder: Path, tmp_path: Path, cache: str, workers: int
) -> None:
    plain, _ = batches(folder)
    cached, stats = batches(folder, cache=CACHES[cache](tmp_path / "ssd"), num_workers=workers)
    assert len(plain) == len(cached) == 66
    assert all(torch.equal(a, b) for a, b in zip(plain, cached, strict=True))
    first, *later = stats["epochs"]
    assert first["hits"] + first["misses"] == 22
    assert [epoch["misses"] for epoch in later] == [later[0]["misses"]] * 2
    assert stats["cache_bytes"] <= stats["cache_budget"] or not stats["cache_budget"]
    if "disk" in cache or "both" in cache:
        assert later[0]["ssd_hits"] > 0
        assert stats["ssd_bytes"] <= stats["ssd_budget"]
        again, more = batches(folder, cache=CACHES[cache](tmp_path / "ssd"))
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
        assert more["epochs"][0]["ssd_hits"] == later[0]["ssd_hits"]  # the disk was there already
    if "random" in cache:
        assert stats["admission"] == "random"


def test_python_workers_use_the_disk_as_well(folder: Path, tmp_path: Path) -> None:
    data = coordl.ImageFolder(folder, lambda picture: torch.tensor(picture.size))
    cache = coordl.MinIOCache("30%", ssd=tmp_path / "ssd")
    loader = coordl.DataLoader(data, 2, cache=cache)
    for _ in range(2):
        for _ in loader:
            pass
    second = loader.stats()["epochs"][1]
    assert (second["hits"], second["misses"]) == (22, 0) and 0 < second["ssd_hits"] < 22


def resident(path: str) -> int:
    libc = ctypes.CDLL(None)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as view:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        vector = (ctypes.c_ubyte * (len(view) // mmap.PAGESIZE + 1))()
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(view)), vector) == 0
        return sum(byte & 1 for byte in vector)


@pytest.mark.parametrize("tier", ["memory", "disk"])
def test_files_the_native_route_admitted_leave_the_page_cache(
    folder: Path, tmp_path: Path, tier: str
) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    for path, _ in data.samples:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    coordl._native.drop_from_page_cache(data.samples[0][0])
    if resident(data.samples[0][0]):
        pytest.skip("this file system keeps its pages")
    cache: Any = "200%" if tier == "memory" else coordl.MinIOCache(0, ssd=tmp_path / "ssd")
    loader = coordl.DataLoader(data, 4, num_workers=1, cache=cache)
    for _ in loader:
        pass
    assert [resident(path) for path, _ in data.samples] == [0] * 22


# ---------------------------------------------------------------------------------- reading ahead


class Counting(torch.utils.data.Sampler[int]):
    """A sampler of the user's: it knows how often it was asked."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        for index in range(self.count):
            self.asked += 1
            yield index


def test_a_users_sampler_is_asked_no_earlier_than_torch_asks(folder: Path) -> None:
    asked = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        sampler = Counting(22)
        data = coordl.ImageFolder(folder, train_transform())
        loader = kind(data, 2, sampler=sampler, num_workers=1)
        iterator, seen = iter(loader), []
        for _ in range(4):
            next(iterator)
            seen.append(sampler.asked)
        asked.append(seen)
        del iterator
    assert asked[0] == asked[1] and asked[1][-1] < 22


def test_torchs_samplers_are_read_ahead_of(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 1, num_workers=1, shuffle=True)
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    # 5 consumed and 2 in flight; what else was looked at is being read meanwhile.
    assert len(iterator._announced) == 22 - 1 - 7
    assert iterator._missing == len(iterator._announced)
    assert len(list(iterator)) == 17
    assert loader.stats()["epochs"][0]["misses"] == 22


@pytest.mark.parametrize("stop", [1, 9, 11])
def test_leaving_a_pass_early_leaves_a_shared_generator_where_torch_leaves_it(
    folder: Path, stop: int
) -> None:
    """RandomSampler draws once more at its end: not before torch would."""
    states = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        generator = torch.Generator().manual_seed(7)
        data = coordl.ImageFolder(folder, train_transform())
        loader = kind(data, 2, shuffle=True, num_workers=1, generator=generator)
        for number, _ in enumerate(loader, 1):
            if number == stop:
                break
        states.append(generator.get_state().tolist())
    assert states[0] == states[1]


def test_which_samplers_may_be_drawn_from_early() -> None:
    from torch.utils import data as tud
    from torch.utils.data.distributed import DistributedSampler

    shared = torch.Generator()
    ten = range(10)

    class Mine(tud.RandomSampler):
        pass

    assert draws_alone(tud.SequentialSampler(ten))
    assert draws_alone(tud.RandomSampler(ten, generator=shared))
    assert draws_alone(tud.RandomSampler(ten, replacement=True))
    assert draws_alone(tud.BatchSampler(tud.SubsetRandomSampler([1, 2]), 2, False))
    assert draws_alone(tud.WeightedRandomSampler([1.0, 2.0], 2))
    assert draws_alone(DistributedSampler(ten, 2, 0))  # type: ignore[arg-type]
    assert not draws_alone(tud.RandomSampler(ten, replacement=True, generator=shared))
    assert not draws_alone(tud.RandomSampler(ten, num_samples=25, generator=shared))
    assert not draws_alone(Mine(ten))
    assert not draws_alone(tud.BatchSampler(Counting(3), 2, False))
    assert not draws_alone([1, 2])


def test_what_is_read_ahead_is_bounded_and_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, stats = batches(folder, 1)
    sizes = [path.stat().st_size for path in folder.rglob("*.jpg")]
    assert stats["total"]["read_ahead_bytes"] > 0
    limit = 3 * max(sizes)
    monkeypatch.setattr(native_epoch, "READ_AHEAD_BYTES", limit)
    bounded, stats = batches(folder, 1, cache="20%")  # which knows the sizes beforehand
    assert 0 < stats["total"]["read_ahead_bytes"] <= limit
    assert all(torch.equal(a, b) for a, b in zip(plain, bounded, strict=True))
    monkeypatch.setattr(native_epoch, "READ_AHEAD_BYTES", 1)  # then one item at a time
    single, stats = batches(folder, 1, cache="20%")
    assert stats["total"]["read_ahead_bytes"] <= max(sizes)
    assert all(torch.equal(a, b) for a, b in zip(plain, single, strict=True))
