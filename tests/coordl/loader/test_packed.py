"""PackedFolder under the loaders: the minibatches of the original ImageFolder, bit for bit."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from recipe import train_transform

import coordl
from coordl import ItemError, PackedFolder
from coordl import transforms as T
from coordl.packing import Order, list_source, pack

pytestmark = pytest.mark.usefixtures("arenas")


@pytest.fixture
def whole_folder(mixed_folder: Path) -> Path:
    """All encodings, a PNG, a CMYK file, odd names; nothing that fails to train."""
    (mixed_folder / "zü" / "cut.jpg").unlink()
    return mixed_folder


@pytest.fixture
def packed(whole_folder: Path, tmp_path: Path) -> Path:
    pack(Order(list_source(whole_folder), "packed", 256 << 10), tmp_path / "packed")
    return tmp_path / "packed"


def tensors(loader: Any, epochs: int = 2) -> list[torch.Tensor]:
    return [tensor for _ in range(epochs) for batch in loader for tensor in batch]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs) > 0
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def brightness(picture: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture.resize((8, 8))).copy())


def test_it_has_the_attributes_of_an_image_folder(whole_folder: Path, packed: Path) -> None:
    ours, theirs = PackedFolder(packed), coordl.ImageFolder(whole_folder)
    assert (ours.classes, ours.class_to_idx) == (theirs.classes, theirs.class_to_idx)
    assert ours.targets == theirs.targets and len(ours) == len(theirs) == 17
    assert [(os.path.join(whole_folder, n), t) for n, t in ours.samples] == theirs.samples
    assert ours.imgs is ours.samples
    assert repr(ours) == f"coordl.PackedFolder({str(packed)!r}: 17 pictures, 3 classes)"


@pytest.mark.parametrize("form", ["packed", "indexed"])
def test_pictures_are_those_of_the_files(whole_folder: Path, tmp_path: Path, form: str) -> None:
    pack(Order(list_source(whole_folder), form), tmp_path / "out")
    ours, theirs = PackedFolder(tmp_path / "out"), coordl.ImageFolder(whole_folder)
    for index in range(len(theirs)):
        (a, x), (b, y) = ours[index], theirs[index]
        assert (a.mode, a.size, x) == (b.mode, b.size, y)
        assert np.array_equal(np.asarray(a), np.asarray(b))
    assert np.array_equal(np.asarray(ours[-1][0]), np.asarray(ours[16][0]))
    with pytest.raises(IndexError):
        ours[17]


def test_the_orientation_of_a_picture_is_kept(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "src" / "a").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photos[0]).save(tmp_path / "src" / "a" / "x.jpg", exif=exif, dpi=(300, 300))
    pack(Order(list_source(tmp_path / "src")), tmp_path / "out")
    turn = ImageOps.exif_transpose
    ours = PackedFolder(tmp_path / "out", turn)[0][0]
    theirs = coordl.ImageFolder(tmp_path / "src", turn)[0][0]
    assert ours.size == theirs.size and np.array_equal(np.asarray(ours), np.asarray(theirs))
    assert PackedFolder(tmp_path / "out")[0][0].info["dpi"] == (300, 300)


def test_transforms_are_applied(packed: Path) -> None:
    data = PackedFolder(packed, brightness, target_transform=lambda target: target + 10)
    picture, target = data[0]
    assert picture.shape == (8, 8, 3) and target == 10


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [None, "100%", "40%"])
@pytest.mark.parametrize("prep", ["native", "python"])
def test_minibatches_are_those_of_the_image_folder(
    whole_folder: Path, packed: Path, prep: str, cache: str | None, workers: int
) -> None:
    def loader(data: Any, cache: str | None = None) -> coordl.DataLoader:
        generator = torch.Generator().manual_seed(5)
        return coordl.DataLoader(
            data, 4, True, num_workers=workers, generator=generator, seed=7, prep=prep, cache=cache
        )

    theirs = loader(coordl.ImageFolder(whole_folder, train_transform()))
    ours = loader(PackedFolder(packed, train_transform()), cache)
    assert_same(tensors(ours), tensors(theirs))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_stock_loader_takes_it_as_any_data_set(
    whole_folder: Path, packed: Path, start: str
) -> None:
    def loader(data: Any) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(data, 4, num_workers=1, multiprocessing_context=start)

    theirs = coordl.ImageFolder(whole_folder, brightness)
    assert_same(
        tensors(loader(PackedFolder(packed, brightness))),
        tensors(torch.utils.data.DataLoader(theirs, 4)),
    )


def test_a_python_transform_reads_through_the_cache(whole_folder: Path, packed: Path) -> None:
    data = PackedFolder(packed, brightness)
    loader = coordl.DataLoader(data, 4, cache="100%")
    theirs = torch.utils.data.DataLoader(coordl.ImageFolder(whole_folder, brightness), 4)
    assert_same(tensors(loader), tensors(theirs))
    first, second = loader.stats()["epochs"]
    assert (first["hits"], first["misses"], second["hits"], second["misses"]) == (0, 17, 17, 0)


@pytest.mark.parametrize("cache", [None, "100%"])
def test_transforms_known_in_part_begin_natively(
    whole_folder: Path, packed: Path, cache: str | None
) -> None:
    recipe = T.Compose([T.RandomResizedCrop(24), brightness])

    def loader(data: Any, cache: str | None = None) -> coordl.DataLoader:
        return coordl.DataLoader(data, 4, seed=3, cache=cache)

    theirs = loader(coordl.ImageFolder(whole_folder, recipe))
    ours = loader(PackedFolder(packed, recipe), cache)
    assert "RandomResizedCrop(size=(24, 24)" in ours.plan()
    assert_same(tensors(ours), tensors(theirs))


def test_the_cache_counts_the_packed_bytes(packed: Path) -> None:
    data = PackedFolder(packed, train_transform())
    loader = coordl.DataLoader(data, 4, cache="100%", num_workers=2)
    tensors(loader)
    first, second = loader.stats()["epochs"]
    size = int(data.packed.index.lengths.sum())
    assert first["storage_bytes"] == first["admitted_bytes"] == size
    assert (second["hits"], second["misses"], second["storage_bytes"]) == (17, 0, 0)
    assert loader.stats()["cache_bytes"] == size


def test_a_subset_is_read_natively_too(whole_folder: Path, packed: Path) -> None:
    def part(data: Any) -> coordl.DataLoader:
        subset = torch.utils.data.Subset(data, [3, 0, -1, 7])
        return coordl.DataLoader(subset, 2, seed=1, prep="native")

    theirs = coordl.ImageFolder(whole_folder, train_transform())
    assert_same(tensors(part(PackedFolder(packed, train_transform()))), tensors(part(theirs)))


def test_the_plan_speaks_of_shards(packed: Path) -> None:
    data = PackedFolder(packed, train_transform())
    assert "fetch: shards, no cache" in coordl.DataLoader(data, prep="native").plan()
    assert (
        "cache, 50%: items held as packed, then shards"
        in coordl.DataLoader(data, cache="50%").plan()
    )


def test_it_travels_to_other_processes(packed: Path) -> None:
    data = PackedFolder(packed, brightness)
    assert torch.equal(pickle.loads(pickle.dumps(data))[4][0], data[4][0])


def flip(packed: Path, data: PackedFolder, row: int) -> None:
    index = data.packed.index
    shard = packed / f"shard-{index.shards[row]:05}.cds"
    content = bytearray(shard.read_bytes())
    content[int(index.offsets[row]) + int(index.lengths[row]) // 2] ^= 8
    shard.write_bytes(content)


@pytest.mark.parametrize("cache", [None, "100%"])
@pytest.mark.parametrize("prep", ["native", "python"])
@pytest.mark.parametrize("row", [2, 9])
def test_damage_is_an_error_at_its_place_and_the_rest_goes_on(
    packed: Path, prep: str, cache: str | None, row: int
) -> None:
    data = PackedFolder(packed, train_transform())
    flip(packed, data, row)
    name = data.samples[row][0]
    for _ in range(2):
        batches = iter(coordl.DataLoader(data, 1, prep=prep, cache=cache))
        for _ in range(row):
            next(batches)
        with pytest.raises(ItemError, match=r"is damaged in .*\.cds") as caught:
            next(batches)
        assert caught.value.index == row and f"sample {row}: {name} " in str(caught.value)
        if prep == "native":
            assert len(list(batches)) == 16 - row


def test_damage_stays_out_of_the_cache_and_off_the_bound_on_fetched_bytes(packed: Path) -> None:
    data = PackedFolder(packed, train_transform())
    flip(packed, data, 0)
    loader = coordl.DataLoader(data, 17, cache="100%", num_workers=1)
    for _ in range(3):
        with pytest.raises(ItemError):
            next(iter(loader))
    assert loader.stats()["cache_bytes"] < int(data.packed.index.lengths.sum())


@pytest.mark.parametrize("prep", ["native", "python"])
def test_a_shard_that_vanished_is_a_file_not_found(packed: Path, prep: str) -> None:
    data = PackedFolder(packed, train_transform())
    (packed / "shard-00000.cds").unlink()
    with pytest.raises(FileNotFoundError, match=r"sample 0: cannot read .*shard-00000\.cds"):
        next(iter(coordl.DataLoader(data, 4, prep=prep)))
    shard = packed / "shard-00001.cds"
    os.truncate(shard, 5000)
    row = int(np.flatnonzero(data.packed.index.shards == 1)[-1])
    with pytest.raises(ItemError, match=rf"sample \d+: {shard}"):
        part = torch.utils.data.Subset(data, [row])
        next(iter(coordl.DataLoader(part, 1, prep=prep)))


def test_a_copied_shard_is_read_anew_with_the_same_pixels(packed: Path) -> None:
    data = PackedFolder(packed, train_transform())
    loader = coordl.DataLoader(data, 17, seed=1, cache=100 << 20)
    next(iter(loader))
    shard = packed / "shard-00000.cds"
    os.utime(shard, (1e9, 1e9))
    loader_2 = coordl.DataLoader(data, 17, seed=1)
    next(iter(loader_2))
    assert torch.equal(next(iter(loader))[0], next(iter(loader_2))[0])
    assert 0 < loader.stats()["epochs"][1]["misses"] < 17


@pytest.mark.parametrize("magic", [b"CdPk", b"CdIx"])
def test_a_users_file_that_calls_itself_an_item_of_ours_is_the_users_affair(
    whole_folder: Path, magic: bytes
) -> None:
    """Never decoded unchecked: Pillow says what it is."""
    path = whole_folder / "a" / "420.jpg"
    path.write_bytes(magic + b"\1\1" + b"\xff" * 5000)
    data = coordl.ImageFolder(whole_folder, train_transform())
    row = next(i for i, (name, _) in enumerate(data.samples) if name == str(path))
    part = torch.utils.data.Subset(data, [row])
    for cache in (None, "100%"):
        with pytest.raises(ItemError, match="sample 0"):
            next(iter(coordl.DataLoader(part, 1, prep="native", cache=cache)))
