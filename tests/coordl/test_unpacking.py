"""coordl unpack: the class folders again, with the original names and coefficients."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coordl import ItemError, PackedDataError, _native
from coordl.fetch.shards import FORMS, open_packed
from coordl.packing import Order, list_source, pack
from coordl.unpacking import unpack


def files(root: Path) -> dict[bytes, bytes]:
    """Every file below a folder, by its path there."""
    found = {}
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, os.fsencode(root))] = file.read()
    return found


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("form", ["packed", "indexed"])
def test_names_coefficients_and_pixels_come_back(
    mixed_folder: Path, tmp_path: Path, form: str
) -> None:
    pack(Order(list_source(mixed_folder), form, 256 << 10), tmp_path / "packed")
    data = open_packed(tmp_path / "packed")
    total = unpack(data, tmp_path / "out", jobs=3)
    before, after = files(mixed_folder), files(tmp_path / "out")
    assert after.keys() == before.keys()
    assert total == sum(map(len, after.values()))
    for name, kind in zip(data.index.names, data.index.forms, strict=True):
        old, new = before[os.fsencode(name)], after[os.fsencode(name)]
        if FORMS[kind] == "original":
            assert new == old
        else:
            assert _native.recode(new, "packed") == _native.recode(old, "packed") is not None
            assert np.array_equal(pixels(new), pixels(old))


def test_a_full_folder_is_refused_unless_forced(mixed_folder: Path, tmp_path: Path) -> None:
    pack(Order(list_source(mixed_folder)), tmp_path / "packed")
    data, out = open_packed(tmp_path / "packed"), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(PackedDataError, match="is not empty"):
        unpack(data, out)
    assert files(out) == {b"mine": b"mine"}
    unpack(data, out, force=True)
    assert len(files(out)) == 19


def test_damage_names_index_file_and_shard(mixed_folder: Path, tmp_path: Path) -> None:
    pack(Order(list_source(mixed_folder)), tmp_path / "packed")
    data = open_packed(tmp_path / "packed")
    row = data.index.names.index("b/deeper/größe 1.jpg")
    shard = tmp_path / "packed" / "shard-00000.cds"
    bytes_ = bytearray(shard.read_bytes())
    bytes_[int(data.index.offsets[row]) + 1000] ^= 4
    shard.write_bytes(bytes_)
    said = rf"sample {row}: b/deeper/größe 1\.jpg is damaged in .*shard-00000\.cds"
    with pytest.raises(ItemError, match=said):
        unpack(data, tmp_path / "out")
