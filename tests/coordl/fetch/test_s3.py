"""S3 through fsspec and s3fs, against moto's server; skipped where these are not installed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from coordl.errors import ItemError
from coordl.fetch.filesystem import CachedFileSystem

moto = pytest.importorskip("moto.server", reason="needs moto[server]")
s3fs = pytest.importorskip("s3fs", reason="needs s3fs")

DATA = bytes(range(256)) * 300


@pytest.fixture(scope="module", autouse=True)
def storage() -> Iterator[dict[str, Any]]:
    """Options of an s3fs over a server with a bucket "pictures" in it."""
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"},
    }
    fs = fsspec.filesystem("s3", **options)
    fs.mkdir("pictures")
    yield options
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(autouse=True)
def no_arena_left(shm_dir: Path) -> Iterator[None]:
    yield
    CachedFileSystem.clear_instance_cache()
    gc.collect()


def opened(storage: dict[str, Any], path: str) -> Any:
    return fsspec.open(f"coordl::s3://{path}", s3=storage, coordl={"cache": "4MiB"})


def test_objects_are_read_once_and_replaced_ones_anew(storage: dict[str, Any]) -> None:
    fs = fsspec.filesystem("s3", **storage)
    fs.pipe("pictures/a", DATA)
    for _ in range(3):
        with opened(storage, "pictures/a") as file:
            assert file.read() == DATA
    fs.ls("pictures")  # an old listing must not hide the new object
    other = s3fs.S3FileSystem(**storage, skip_instance_cache=True)
    other.pipe("pictures/a", DATA[::-1])
    with opened(storage, "pictures/a") as file:
        assert file.read() == DATA[::-1]
        file.seek(100)
        assert file.read(10) == DATA[::-1][100:110]
    held = opened(storage, "pictures/a").fs
    stats = held.stats()
    assert (stats["hits"], stats["misses"], stats["bypassed"]) == (2, 2, {})
    assert stats["storage_bytes"] == 2 * len(DATA)
    del held, other


def test_what_is_not_there_is_named(storage: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"s3://pictures/none.*moved or removed") as caught:
        opened(storage, "pictures/none").open()
    assert isinstance(caught.value, ItemError)
    del caught
