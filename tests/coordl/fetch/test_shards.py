"""The format of packed data sets: what is written is read again, what is wrong is named."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from coordl import _native
from coordl.errors import ItemError, PackedDataError
from coordl.fetch.cache import MinIOCache
from coordl.fetch.item import Items
from coordl.fetch.shards import (
    INDEX,
    MANIFEST,
    STATE,
    Index,
    decode_index,
    encode_index,
    item_checksum,
    open_packed,
)
from coordl.fetch.storage import fetch
from coordl.packing import Order, list_source, pack

COLUMNS = [field.name for field in dataclasses.fields(Index) if field.name not in ("id", "names")]


@pytest.fixture
def packed(tmp_path: Path, photos: list[Path]) -> Path:
    """A packed data set: 6 pictures in 2 classes, 3 shards."""
    for number in range(6):
        home = tmp_path / "pictures" / f"class{number // 3}"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{number}.jpg").write_bytes(photos[number % len(photos)].read_bytes())
    pack(Order(list_source(tmp_path / "pictures"), "packed", 192 << 10), tmp_path / "packed")
    return tmp_path / "packed"


@pytest.fixture
def index(packed: Path) -> Index:
    return open_packed(packed).index


def rewritten(index: Index, **changes: object) -> bytes:
    """The index with lies in it and a checksum that fits."""
    return encode_index(dataclasses.replace(index, **changes))  # type: ignore[arg-type]


def test_an_index_reads_as_it_was_written(index: Index) -> None:
    again = decode_index(encode_index(index), "index.cdi")
    assert (again.id, again.names, again.classes) == (index.id, index.names, index.classes)
    for name in COLUMNS:
        assert np.array_equal(getattr(again, name), getattr(index, name)), name


def test_the_layout_is_the_documented_one(packed: Path, index: Index) -> None:
    """docs/packed-data.md, read by hand."""
    data = (packed / INDEX).read_bytes()
    assert data[:8] == b"CdIndex\n"
    version, _, items, shards, names, classes = struct.unpack_from("<IIQQQQ", data, 8)
    assert (version, items, shards) == (1, 6, 3)
    assert data[48:64] == index.id
    at = 64 + 8 * shards
    offsets = np.frombuffer(data, "<u8", items, at)
    lengths = np.frombuffer(data, "<u8", items, at + 8 * items)
    numbers = np.frombuffer(data, "<u4", items, at + 40 * items)
    assert data[at + 49 * items :][:names].split(b"\0")[0] == b"class0/0.jpg"
    assert len(data) == at + 49 * items + names + classes + 8
    assert not (offsets % 64).any()
    for row in range(items):
        shard = (packed / f"shard-{numbers[row]:05}.cds").read_bytes()
        assert shard[:8] == b"CdShard\n" and shard[16:32] == index.id
        assert struct.unpack_from("<II", shard, 8) == (1, numbers[row])
        item = shard[offsets[row] :][: lengths[row]]
        assert item[:4] == b"CdPk"
        assert item_checksum(item, int(offsets[row])) == index.checksums[row]


def test_every_flipped_byte_of_the_index_is_found(packed: Path, index: Index) -> None:
    data = (packed / INDEX).read_bytes()
    for at in range(0, len(data), 7):
        bad = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
        with pytest.raises(PackedDataError, match=r"index\.cdi"):
            decode_index(bad, "index.cdi")


def test_an_index_cut_short_says_by_how_much(packed: Path) -> None:
    path = packed / INDEX
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PackedDataError, match=r"index\.cdi is cut short: [\d,]+ of [\d,]+ bytes"):
        open_packed(packed)


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/x.jpg", "a/../../x.jpg", "a//x.jpg", "", ".", "a/."]
)
def test_names_that_lead_out_of_the_folder_are_refused(index: Index, name: str) -> None:
    lie = rewritten(index, names=[*index.names[:2], name, *index.names[3:]])
    with pytest.raises(PackedDataError, match="would lead out of its folder"):
        decode_index(lie, "index.cdi")


@pytest.mark.parametrize("name", ["..x.jpg", "a/...jpg", ".a/b.", "x..", "..."])
def test_names_with_dots_are_names(index: Index, name: str) -> None:
    names = [*index.names[:2], name, *index.names[3:]]
    assert decode_index(rewritten(index, names=names), "index.cdi").names == names


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("shards", 3, "a shard that does not exist"),
        ("targets", 2, "a class that does not exist"),
        ("forms", 3, "a form that does not exist"),
        ("offsets", 1 << 40, "outside its shard"),
        ("offsets", (1 << 64) - 64, "outside its shard"),
        ("offsets", 0, "outside its shard"),
        ("lengths", (1 << 64) - 1, "outside its shard"),
        ("lengths", 1 << 30, "outside its shard"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    index: Index, column: str, value: int, said: str
) -> None:
    lie = getattr(index, column).copy()
    lie[4] = value
    with pytest.raises(PackedDataError, match=said):
        decode_index(rewritten(index, **{column: lie}), "index.cdi")


def test_counts_that_ask_for_all_memory_are_refused(index: Index) -> None:
    data = bytearray(encode_index(index))
    struct.pack_into("<Q", data, 16, 1 << 60)
    with pytest.raises(PackedDataError, match="cut short"):
        decode_index(bytes(data), "index.cdi")


def test_another_version_says_so(packed: Path) -> None:
    data = bytearray((packed / INDEX).read_bytes())
    data[8] = 9
    (packed / INDEX).write_bytes(data)
    said = r"index\.cdi has format 9; this coordl reads format 1\. Update coordl, or pack"
    with pytest.raises(PackedDataError, match=said):
        open_packed(packed)


@pytest.mark.parametrize(("version", "said"), [(2, "Update coordl"), (0, "with the version that")])
def test_a_shard_of_another_version_names_it_and_what_to_do(
    packed: Path, version: int, said: str
) -> None:
    shard = packed / "shard-00001.cds"
    data = bytearray(shard.read_bytes())
    data[8:12] = version.to_bytes(4, "little")
    shard.write_bytes(
        data + bytes(5)
    )  # a newer one may well be of another size: the version counts
    expected = rf"shard-00001\.cds has format {version}; this coordl reads format 1\. .*{said}"
    with pytest.raises(PackedDataError, match=expected):
        open_packed(packed)


def test_a_shard_cut_short_or_missing_is_named(packed: Path) -> None:
    shard = packed / "shard-00001.cds"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(PackedDataError, match=r"shard-00001\.cds is cut short: [\d,]+ bytes"):
        open_packed(packed)
    shard.unlink()
    with pytest.raises(PackedDataError, match=r"shard-00001\.cds is missing"):
        open_packed(packed)


def test_a_shard_of_another_data_set_is_refused(packed: Path) -> None:
    shard = packed / "shard-00001.cds"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1  # of the id
    shard.write_bytes(data)
    with pytest.raises(PackedDataError, match="is not this data set's shard of that number"):
        open_packed(packed)


def test_folders_that_hold_no_packed_data_set_say_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        open_packed(tmp_path / "none")
    with pytest.raises(PackedDataError, match=r"holds no packed data set: manifest\.json is miss"):
        open_packed(tmp_path)
    (tmp_path / STATE).write_text("{}")
    with pytest.raises(PackedDataError, match="not packed to the end"):
        open_packed(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged"),
        ("[]", "is not a packed data set's"),
        ('{"version": "photos-v1"}', "is not a packed data set's"),
        (
            '{"format": "coordl packed data", "schema": 7}',
            "format 7; this coordl reads format 1. Update coordl",
        ),
    ],
)
def test_a_manifest_of_something_else_is_refused(packed: Path, text: str, said: str) -> None:
    (packed / MANIFEST).write_text(text)
    with pytest.raises(PackedDataError, match=said):
        open_packed(packed)


def test_an_index_of_another_data_set_is_refused(packed: Path) -> None:
    manifest = json.loads((packed / MANIFEST).read_text())
    (packed / MANIFEST).write_text(json.dumps({**manifest, "id": "00" * 16}))
    with pytest.raises(PackedDataError, match="belongs to another data set"):
        open_packed(packed)


# ------------------------------------------------------------------------------- reading items


@pytest.fixture
def items(packed: Path) -> Items:
    return open_packed(packed).items(keyed=True)


def test_items_are_parts_with_keys_of_their_own(items: Items, index: Index) -> None:
    assert items.parts is not None
    assert items.sizes.tolist() == index.lengths.tolist()
    assert items.total_bytes == int(index.lengths.sum())
    assert len(np.unique(items.keys, axis=0)) == len(items)
    assert all(_native.form(fetch(items, row)) == "packed" for row in range(len(items)))


def test_an_item_is_read_once_and_then_comes_from_the_cache(items: Items) -> None:
    with MinIOCache("10MiB", name="t-parts") as cache:
        first = [bytes(fetch(items, row, cache)) for row in range(len(items))]
        assert cache.stats()["items"] == len(items)
        assert isinstance(fetch(items, 3, cache), memoryview)
        assert [bytes(fetch(items, row, cache)) for row in range(len(items))] == first


def flip(packed: Path, index: Index, row: int, at: int) -> None:
    shard = packed / f"shard-{index.shards[row]:05}.cds"
    data = bytearray(shard.read_bytes())
    data[int(index.offsets[row]) + at] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize("at", [0, 5, 500, -1])
def test_a_flipped_bit_names_index_file_and_shard_and_is_not_cached(
    packed: Path, index: Index, at: int
) -> None:
    flip(packed, index, 2, at % int(index.lengths[2]))
    items = open_packed(packed).items(keyed=True)
    with MinIOCache("10MiB", name="t-flipped") as cache:
        said = r"sample 2: class0/2\.jpg is damaged in .*shard-0000\d\.cds"
        with pytest.raises(ItemError, match=said) as caught:
            fetch(items, 2, cache)
        assert caught.value.index == 2
        assert cache.stats()["items"] == 0
        fetch(items, 3, cache)


def test_bytes_that_belong_elsewhere_are_damage(packed: Path, index: Index) -> None:
    """Two items of one length, swapped: each is whole, and wrong where it lies."""
    shard = packed / "shard-00000.cds"
    data = bytearray(shard.read_bytes())
    offset, length = int(index.offsets[0]), int(index.lengths[0])
    assert item_checksum(data[offset : offset + length], offset) == index.checksums[0]
    assert item_checksum(data[offset : offset + length], offset + 64) != index.checksums[0]


def test_an_item_with_a_fitting_checksum_and_an_impossible_inside_is_damage(
    packed: Path, index: Index
) -> None:
    flip(packed, index, 1, 20 + 4 + 3 * 128 + 1)  # the directory of its blocks
    shard = (packed / f"shard-{index.shards[1]:05}.cds").read_bytes()
    offset, length = int(index.offsets[1]), int(index.lengths[1])
    checksums = index.checksums.copy()
    checksums[1] = item_checksum(shard[offset : offset + length], offset)
    (packed / INDEX).write_bytes(rewritten(index, checksums=checksums))
    items = open_packed(packed).items(keyed=False)
    with pytest.raises(ItemError, match=r"sample 1: .* is damaged in"):
        fetch(items, 1)


def test_a_part_beyond_the_end_of_its_file_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    assert _native.read_part(tmp_path / "file", 90, 10)[0] == bytes(10)
    for offset, length in [(90, 11), (101, 0), (0, 1 << 62), (1 << 62, 1 << 62)]:
        with pytest.raises(EOFError, match="of 100 bytes"):
            _native.read_part(tmp_path / "file", offset, length)
