"""TarShards under the loaders: the minibatches of the same pictures in a folder, bit for bit."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tars import write_tar

import coordl
from coordl import ItemError, TarShardError, TarShards
from coordl import transforms as T
from coordl.fetch.cache import MinIOCache
from coordl.sources import tar_index

COUNT = 13


def train_transform() -> T.Compose:
    return T.Compose([T.RandomResizedCrop(32), T.RandomHorizontalFlip(), T.ToTensor()])


def brightness(picture: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture.resize((8, 8))).copy())


def caption(number: int) -> dict[str, Any]:
    return {"number": number, "caption": f"picture {number} " * 8}


def array_bytes(number: int) -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(3) + number)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    """The same pictures as files, in one class."""
    home = tmp_path / "files" / "only"
    home.mkdir(parents=True)
    for number in range(COUNT):
        shutil.copyfile(photos[number % len(photos)], home / f"{number:03}.jpg")
    return tmp_path / "files"


@pytest.fixture
def tars(tmp_path: Path, folder: Path) -> str:
    """Three shards of 5, 5 and 3 samples in the three formats, with fields of every kind."""
    formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    for shard in range(3):
        members = [("README", b"no sample's")]
        for number in range(shard * 5, min(COUNT, shard * 5 + 5)):
            data = (folder / "only" / f"{number:03}.jpg").read_bytes()
            members += [
                (f"part/{number:03}.cls", str(number % 7).encode()),
                (f"part/{number:03}.JPG", data),
                (f"part/{number:03}.json", json.dumps(caption(number)).encode()),
                (f"part/{number:03}.txt", f"größe {number}".encode()),
                (f"part/{number:03}.box.npy", array_bytes(number)),
                (f"part/{number:03}.raw", bytes([number])),
            ]
        write_tar(tmp_path / "shards" / f"t-{shard:05}.tar", members, formats[shard])
    return str(tmp_path / "shards" / "t-{00000..00002}.tar")


def tensors(loader: Any, epochs: int = 2) -> list[torch.Tensor]:
    return [batch[0] for _ in range(epochs) for batch in loader]


def labels(loader: Any) -> list[int]:
    return [label for batch in loader for label in batch[1].tolist()]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs) > 0
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_samples_are_the_groups_of_members_with_one_stem(tars: str) -> None:
    data = TarShards(tars)
    assert len(data) == COUNT and len(data.shards) == 3
    assert [data[i][1] for i in range(COUNT)] == [i % 7 for i in range(COUNT)]
    assert data.name(7).endswith("/t-00001.tar/part/007.jpg")
    assert data[-1][1] == data[COUNT - 1][1] and data.read_fields == ()
    assert repr(data) == "coordl.TarShards(13 samples in 3 tar(s))"
    with pytest.raises(IndexError):
        data[COUNT]


def test_samples_are_those_of_webdataset(tars: str) -> None:
    wds = pytest.importorskip("webdataset", reason="needs webdataset")
    fields = ("cls", "json", "txt", "raw", "__key__")
    theirs = wds.WebDataset(tars, shardshuffle=False).decode().to_tuple(*fields)
    ours = TarShards(tars, target=fields)
    assert [ours[i][1] for i in range(COUNT)] == [tuple(sample) for sample in theirs]


def test_pictures_are_those_of_the_files(tars: str, folder: Path) -> None:
    ours, theirs = TarShards(tars), coordl.ImageFolder(folder)
    for index in range(COUNT):
        assert np.array_equal(np.asarray(ours[index][0]), np.asarray(theirs[index][0]))


def test_fields_are_decoded_by_their_extension(tars: str) -> None:
    data = TarShards(tars, target=("cls", "json", "txt", "box.npy", "raw", "__key__"))
    assert data.read_fields == ("json", "box.npy")
    for index in (0, 8, 12):
        number, details, text, box, raw, key = data[index][1]
        assert (number, details) == (index % 7, caption(index))
        assert (text, raw, key) == (f"größe {index}", bytes([index]), f"part/{index:03}")
        assert box.tolist() == [index, index + 1, index + 2]


def test_transforms_are_applied(tars: str) -> None:
    picture, target = TarShards(tars, brightness, target_transform=lambda label: -label)[3]
    assert picture.shape == (8, 8, 3) and target == -3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [None, "100%", "40%"])
@pytest.mark.parametrize("prep", ["native", "python"])
def test_minibatches_are_those_of_the_image_folder(
    tars: str, folder: Path, prep: str, cache: str | None, workers: int
) -> None:
    def loader(data: Any, cache: str | None = None) -> coordl.DataLoader:
        generator = torch.Generator().manual_seed(5)
        return coordl.DataLoader(
            data, 4, True, num_workers=workers, generator=generator, seed=7, prep=prep, cache=cache
        )

    theirs = loader(coordl.ImageFolder(folder, train_transform()))
    ours = loader(TarShards(tars, train_transform()), cache)
    assert_same(tensors(ours), tensors(theirs))
    assert sorted(labels(ours)) == sorted(i % 7 for i in range(COUNT))


@pytest.mark.parametrize("form", ["original", "indexed", "packed"])
def test_the_cache_holds_pictures_in_every_form(tars: str, folder: Path, form: str) -> None:
    data = TarShards(tars, train_transform())
    theirs = coordl.DataLoader(coordl.ImageFolder(folder, train_transform()), 4, seed=7)
    ours = coordl.DataLoader(data, 4, seed=7, cache="200%", cache_form=form, prep="native")
    assert_same(tensors(ours), tensors(theirs))
    first, second = ours.stats()["epochs"]
    size = int(data.index.lengths[data.pictures].sum())
    assert (first["misses"], first["storage_bytes"]) == (COUNT, size)
    assert (second["hits"], second["misses"], second["storage_bytes"]) == (COUNT, 0, 0)
    assert ours.stats()["cache_forms"][form] == COUNT


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_stock_loader_takes_it_as_any_data_set(tars: str, folder: Path, start: str) -> None:
    def loader(data: Any) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(data, 4, num_workers=1, multiprocessing_context=start)

    theirs = coordl.ImageFolder(folder, brightness)
    assert_same(
        tensors(loader(TarShards(tars, brightness))),
        tensors(torch.utils.data.DataLoader(theirs, 4)),
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_targets_too_large_for_the_index_are_read_in_python_and_cached(
    tars: str, folder: Path, workers: int
) -> None:
    data = TarShards(tars, train_transform(), target=("json", "cls"))
    loader = coordl.DataLoader(data, 4, seed=7, cache="100%", num_workers=workers)
    assert "its targets are read from the tar shards" in loader.plan()
    assert "RandomResizedCrop(size=(32, 32)" in loader.plan()  # pictures are native all the same
    for _ in range(2):
        numbers = [n for _, (details, _) in loader for n in details["number"].tolist()]
        assert numbers == list(range(COUNT))
    theirs = coordl.DataLoader(
        coordl.ImageFolder(folder, train_transform()), 4, seed=7, collate_fn=list
    )  # natively begun as well
    ours = coordl.DataLoader(data, 4, seed=7, collate_fn=list)
    assert_same(
        [sample[0] for batch in ours for sample in batch],
        [sample[0] for batch in theirs for sample in batch],
    )
    if workers == 0:
        second = loader.stats()["epochs"][1]
        assert (second["hits"], second["misses"], second["storage_bytes"]) == (2 * COUNT, 0, 0)


def test_prep_native_says_that_targets_stand_in_the_way(tars: str) -> None:
    data = TarShards(tars, train_transform(), target="json")
    with pytest.raises(ValueError, match="its targets are read from the tar shards"):
        coordl.DataLoader(data, prep="native")


def test_a_cache_is_warmed_with_pictures_and_targets(tars: str) -> None:
    data = TarShards(tars, train_transform(), target="json")
    with MinIOCache("100%", form="original") as cache:
        done = cache.warm(data, workers=2)
        assert (done.items, done.held, done.failed) == (2 * COUNT, 2 * COUNT, ())
        loader = coordl.DataLoader(data, 4, cache=cache)
        list(loader)
        assert loader.stats()["epochs"][0]["misses"] == 0
        part = torch.utils.data.Subset(data, [3, -1])
        assert cache.warm(part, workers=1).items == 4


def test_a_subset_is_read_natively_too(tars: str, folder: Path) -> None:
    def part(data: Any) -> coordl.DataLoader:
        subset = torch.utils.data.Subset(data, [3, 0, -1, 7])
        return coordl.DataLoader(subset, 2, seed=1, prep="native")

    ours, theirs = TarShards(tars, train_transform()), coordl.ImageFolder(folder, train_transform())
    assert_same(tensors(part(ours)), tensors(part(theirs)))
    assert labels(part(ours)) == [3, 0, 5, 0]


def test_the_plan_speaks_of_tar_shards(tars: str) -> None:
    data = TarShards(tars, train_transform())
    assert "fetch: tar shards, no cache" in coordl.DataLoader(data, prep="native").plan()
    assert "then tar shards" in coordl.DataLoader(data, cache="50%").plan()


def test_it_travels_to_other_processes(tars: str) -> None:
    data = TarShards(tars, brightness, target=("cls", "json"))
    copied = pickle.loads(pickle.dumps(data))
    assert torch.equal(copied[4][0], data[4][0]) and copied[4][1] == data[4][1]


def test_other_pictures_and_several_in_a_sample(tmp_path: Path, photos: list[Path]) -> None:
    data = photos[0].read_bytes()
    path = write_tar(tmp_path / "x.tar", [("a.left.jpg", data), ("a.right.jpg", data[:100])])
    ours = TarShards(path, image="left.jpg", target="right.jpg")
    assert ours[0][0].size[0] > 0 and ours[0][1] == data[:100]


# -- the kept index --------------------------------------------------------------------------


def never(path: str) -> Any:
    raise AssertionError(f"the headers of {path} were read again")


def test_headers_are_read_once(
    tars: str, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TarShards(tars, target=("cls", "json", "txt"))
    monkeypatch.setattr(tar_index, "read_members", never)
    second = TarShards(tars, target=("cls", "json", "txt"))
    assert all(first[i][1] == second[i][1] for i in range(COUNT))
    assert len(list(user_cache.rglob("*.npz"))) == 3


def test_an_index_may_be_kept_elsewhere(tars: str, user_cache: Path, tmp_path: Path) -> None:
    TarShards(tars, index_folder=tmp_path / "indices")
    assert len(list((tmp_path / "indices").iterdir())) == 3 and not list(user_cache.iterdir())


def test_a_tar_that_changed_is_indexed_anew(tars: str, tmp_path: Path) -> None:
    TarShards(tars)
    path = tmp_path / "shards" / "t-00002.tar"
    members = [("a.jpg", b"x"), ("a.cls", b"6")]
    write_tar(path, members)
    assert len(TarShards(tars)) == 11


def test_damaged_indices_are_made_anew(tars: str, user_cache: Path) -> None:
    names = [TarShards(tars).name(row) for row in range(COUNT)]
    (first, second, third) = sorted(user_cache.rglob("*.npz"))
    first.write_bytes(b"no index")
    second.write_bytes(second.read_bytes()[:-400])
    with np.load(third) as file:
        columns = dict(file)
    columns["offsets"] = columns["offsets"] + np.uint64(1 << 40)  # a liar's, with right checksums
    np.savez(third, **columns)
    data = TarShards(tars)
    assert [data.name(row) for row in range(COUNT)] == names
    assert [data[i][1] for i in range(COUNT)] == [i % 7 for i in range(COUNT)]


@pytest.mark.parametrize("seed", range(40))
def test_an_index_with_random_damage_never_misleads(tars: str, user_cache: Path, seed: int) -> None:
    data = TarShards(tars)
    kept = sorted(user_cache.rglob("*.npz"))[seed % 3]
    draw = np.random.default_rng(seed)
    damaged = bytearray(kept.read_bytes())
    for at in draw.integers(0, len(damaged), 1 + seed % 5):
        damaged[at] = draw.integers(256)
    kept.write_bytes(damaged)
    again = TarShards(tars)
    assert [again.name(row) for row in range(COUNT)] == [data.name(row) for row in range(COUNT)]
    assert np.array_equal(again.index.offsets, data.index.offsets)


def test_where_nothing_can_be_kept_the_headers_serve(tars: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(TarShards(tars, index_folder=tmp_path / "file" / "below")) == COUNT


# -- what is wrong with a tar ------------------------------------------------------------------


def test_samples_without_picture_or_target_are_named(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.cls", b"1"), ("b.jpg", b"1"), ("c.txt", b"1"), ("c.cls", b"1")]
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(TarShardError, match=r"1 of 3 samples have no field jpg or .*'c' in .*x\.t"):
        TarShards(path)
    with pytest.raises(TarShardError, match=r"1 of 3 .* field cls\. The first is 'b'.*--sort=name"):
        TarShards(path, image=("jpg", "txt"))


def test_a_field_twice_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("a.cls", b"1"), ("a.jpg", b"2")])
    with pytest.raises(TarShardError, match=r"x\.tar, byte 2,560: sample 'a' has .*'jpg' twice"):
        TarShards(path)


def test_a_tar_without_samples_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("README", b"1"), ("d/.hidden", b"1")])
    with pytest.raises(TarShardError, match=r"x\.tar holds no samples: none of its 2 files"):
        TarShards(path)


def test_a_class_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("a.cls", b"cat")])
    with pytest.raises(ValueError, match=r"field cls of 'a' in .*x\.tar is no number .*b'cat'"):
        TarShards(path)


def test_a_target_that_cannot_be_decoded_names_index_and_sample(tmp_path: Path, photos) -> None:
    members = [("a.jpg", photos[0].read_bytes()), ("a.json", b"{" * 70)]
    data = TarShards(write_tar(tmp_path / "x.tar", members), target="json")
    with pytest.raises(ItemError, match=r"sample 0, .*x\.tar/a\.jpg: its field json cannot be"):
        data[0]


@pytest.mark.parametrize("prep", ["native", "python"])
@pytest.mark.parametrize("cache", [None, "100%"])
def test_a_bad_picture_is_named_at_its_place(tmp_path: Path, photos, prep: str, cache) -> None:
    members = []
    for number in range(4):
        data = photos[0].read_bytes() if number != 2 else b"no picture" * 9
        members += [(f"{number}.jpg", data), (f"{number}.cls", b"0")]
    data = TarShards(write_tar(tmp_path / "x.tar", members), train_transform())
    batches = iter(coordl.DataLoader(data, 2, prep=prep, cache=cache))
    next(batches)
    with pytest.raises(ItemError, match=r"sample 2, .*x\.tar/2\.jpg: cannot identify") as caught:
        next(batches)
    assert caught.value.index == 2


@pytest.mark.parametrize("prep", ["native", "python"])
@pytest.mark.parametrize("cache", [None, "100%"])
def test_a_tar_that_changes_after_it_was_indexed_is_never_read_at_old_offsets(
    tars: str, tmp_path: Path, prep: str, cache: str | None
) -> None:
    data = TarShards(tars, train_transform())
    path = tmp_path / "shards" / "t-00001.tar"
    content = path.read_bytes()
    path.write_bytes(content[:512] + content)
    for _ in range(2):
        loader = coordl.DataLoader(data, 1, sampler=[7], prep=prep, cache=cache)
        with pytest.raises(ItemError, match=r"sample 7: .*t-00001\.tar is not as it was") as caught:
            next(iter(loader))
        assert "make the data set object anew" in str(caught.value)
    with pytest.raises(ItemError, match=r"sample 7: .*is not as it was"):
        data[7]


@pytest.mark.parametrize("prep", ["native", "python"])
def test_a_tar_that_vanished_is_a_file_not_found(tars: str, tmp_path: Path, prep: str) -> None:
    data = TarShards(tars, train_transform())
    os.unlink(tmp_path / "shards" / "t-00000.tar")
    with pytest.raises(FileNotFoundError, match=r"sample 0: cannot read .*t-00000\.tar"):
        next(iter(coordl.DataLoader(data, 4, prep=prep)))


@pytest.mark.parametrize("magic", [b"CdPk", b"CdIx"])
def test_a_member_that_calls_itself_an_item_of_ours_is_never_decoded_unchecked(
    tmp_path: Path, magic: bytes
) -> None:
    members = [("a.jpg", magic + b"\1\1" + b"\xff" * 5000), ("a.cls", b"0")]
    data = TarShards(write_tar(tmp_path / "x.tar", members), train_transform())
    for cache in (None, "100%"):
        with pytest.raises(ItemError, match="sample 0"):
            next(iter(coordl.DataLoader(data, 1, prep="native", cache=cache)))
