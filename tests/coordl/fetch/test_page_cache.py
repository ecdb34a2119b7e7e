"""What the cache holds is held once: the page cache of its file is empty, by any way it came in."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from coordl import _native
from coordl.fetch.cache import MinIOCache
from coordl.fetch.item import Parts, identify, identify_parts
from coordl.fetch.shards import item_checksum
from coordl.fetch.storage import fetch

PAGE = mmap.PAGESIZE


def resident(path: str) -> int:
    """Pages of the file in the page cache, by mincore."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = os.path.getsize(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as view:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        pages = (size + PAGE - 1) // PAGE
        vector = (ctypes.c_ubyte * pages)()
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), vector) == 0
        return sum(byte & 1 for byte in vector)


def write(path: Path, data: bytes) -> str:
    with path.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())  # dirty pages cannot be dropped
    return str(path)


@pytest.fixture(autouse=True)
def pages_can_be_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "probe", bytes(10 * PAGE))
    Path(path).read_bytes()
    before = resident(path)
    _native.drop_from_page_cache(path)
    if before != 10 or resident(path) != 0:
        pytest.skip("this file system keeps its pages")


def test_a_file_admitted_leaves_no_page_and_one_refused_keeps_its_own(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.jpg", os.urandom(5 * PAGE + 7)) for i in range(4)]
    items = identify(paths)
    with MinIOCache(2 * (5 * PAGE + 7), name="t-pages") as cache:
        for i in range(4):
            fetch(items, i, cache)
    assert [resident(path) for path in paths] == [0, 0, 6, 6]


def test_a_part_of_a_shard_goes_with_the_pages_it_begins_and_ends_in(tmp_path: Path) -> None:
    import numpy as np

    size = 3 * PAGE + 100
    shard = write(tmp_path / "shard", os.urandom(8 * size))
    data = Path(shard).read_bytes()
    _native.drop_from_page_cache(shard)  # large folios of reading it whole, which parts cannot drop
    offsets = np.arange(8, dtype=np.uint64) * size
    checksums = [item_checksum(data[int(o) : int(o) + size], int(o)) for o in offsets]
    info = os.stat(shard)
    parts = Parts(
        [f"{i}.jpg" for i in range(8)], np.zeros(8, np.uint32), offsets,
        np.full(8, size, np.uint64), np.array(checksums, np.uint64), [shard],
        np.array([info.st_size]), np.array([info.st_mtime_ns]),
    )  # fmt: skip
    items = identify_parts(parts)
    with MinIOCache(1 << 20, name="t-parts") as cache:
        for i in range(8):
            fetch(items, i, cache)
        assert cache.stats()["items"] == 8
    assert resident(shard) == 0


def test_reading_a_part_brings_in_just_its_pages(tmp_path: Path) -> None:
    shard = write(tmp_path / "shard", os.urandom(256 * PAGE))
    _native.drop_from_page_cache(shard)
    _native.read_part(shard, 64 * PAGE, 4 * PAGE)
    assert resident(shard) == 4
