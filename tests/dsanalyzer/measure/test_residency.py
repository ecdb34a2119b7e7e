"""Residency is what the kernel holds, not what the tool hopes."""

import os

import pytest

from dsanalyzer.measure import residency


@pytest.fixture
def big_file(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(50 * residency.PAGE_BYTES + 1))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    residency.evict(str(path))
    if residency.residency([str(path)]).resident_pages:
        pytest.skip("this file system keeps its pages (tmpfs): eviction cannot be tested on it")
    return str(path)


def test_an_evicted_file_is_not_resident_and_a_read_one_is(big_file):
    assert residency.residency([big_file]).share == 0.0

    residency.warm(big_file, bytearray(1 << 16))

    assert residency.residency([big_file]).share == 1.0


def test_cachestat_and_mincore_agree(big_file):
    residency.warm(big_file, bytearray(1 << 16))
    fd = os.open(big_file, os.O_RDONLY)
    try:
        assert residency._mincore(fd, os.path.getsize(big_file)) == 51
        assert residency._cachestat(fd) in (51, None)
    finally:
        os.close(fd)


def test_dirty_pages_are_written_back_before_they_are_evicted(tmp_path, big_file):
    with open(big_file, "r+b") as file:
        file.write(b"dirty")

    residency.evict(big_file)

    assert residency.residency([big_file]).share == 0.0


def test_the_last_page_counts_whole():
    assert residency.device_bytes(residency.PAGE_BYTES + 1) == 2 * residency.PAGE_BYTES
