from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coordl import _native
from coordl.errors import ItemError
from coordl.fetch.cache import MinIOCache
from coordl.fetch.failure import ItemNotFoundError, ItemOSError
from coordl.fetch.item import Items, identify
from coordl.fetch.storage import fetch

opened: list[str] = []


def note_opens(event: str, args: tuple) -> None:
    if event == "open" and isinstance(args[0], str) and "coordl-storage" in args[0]:
        opened.append(args[0])


sys.addaudithook(note_opens)  # cannot be removed: so once, and only for these files


@pytest.fixture
def items(tmp_path: Path) -> Items:
    folder = tmp_path / "coordl-storage"
    folder.mkdir()
    paths = []
    for i in range(10):
        path = folder / f"{i}.jpg"
        path.write_bytes(bytes([i]) * 1000)
        paths.append(str(path))
    opened.clear()
    return identify(paths)


def test_an_item_is_read_once_and_then_comes_from_the_cache(items: Items) -> None:
    with MinIOCache(100_000, name="t-fetch") as cache:
        for _ in range(3):
            for i in range(10):
                assert fetch(items, i, cache) == bytes([i]) * 1000
    assert opened == list(items.paths)


def test_what_does_not_fit_is_read_every_time_and_nothing_else(items: Items) -> None:
    with MinIOCache("40%", name="t-part", dataset_bytes=items.total_bytes) as cache:
        for _ in range(3):
            for i in range(10):
                fetch(items, i, cache)
    assert len(opened) == 10 + 6 + 6
    assert set(opened[10:]) == set(items.paths[4:])


def test_without_a_cache_every_read_is_seen_by_audit_hooks(items: Items) -> None:
    assert fetch(items, 3) == fetch(items, 3) == bytes([3]) * 1000
    assert opened == [items.paths[3]] * 2


def test_a_file_replaced_since_is_delivered_but_never_cached(items: Items) -> None:
    Path(items.paths[0]).write_bytes(b"new")
    with MinIOCache(100_000, name="t-replaced") as cache:
        assert fetch(items, 0, cache) == b"new"
        assert cache.stats()["items"] == 0


def test_a_file_that_vanished_is_an_item_error_and_a_file_not_found_error(items: Items) -> None:
    os.unlink(items.paths[4])
    with pytest.raises(FileNotFoundError, match=r"sample 4: cannot read .*4\.jpg") as caught:
        fetch(items, 4)
    assert isinstance(caught.value, ItemError)
    assert (caught.value.index, caught.value.filename) == (4, items.paths[4])


def test_a_file_one_may_not_read_is_a_permission_error(
    items: Items, in_fork: Callable[[Callable[[], object]], int]
) -> None:
    os.chmod(items.paths[2], 0)

    def reads() -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)  # root reads everything
        with pytest.raises(PermissionError, match=r"sample 2: .*Give this user read permission"):
            fetch(items, 2)

    assert in_fork(reads) == 0


def test_item_errors_cross_processes_as_torch_sends_them() -> None:
    error = ItemNotFoundError("sample 1: gone", 1, "/x", 2)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.index, copy.path, copy.errno) == (
        ItemNotFoundError, "sample 1: gone", 1, "/x", 2,
    )  # fmt: skip
    assert str(type(error)("Caught in worker")) == "Caught in worker"
    assert pickle.loads(pickle.dumps(ItemOSError)) is ItemOSError


def test_reading_a_folder_a_pipe_or_nothing_keeps_the_errno(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        _native.read_file(str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        _native.read_file(str(tmp_path / "none"))
    assert caught.value.filename == str(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Invalid argument"):
        _native.read_file(str(tmp_path / "pipe"))


def test_reading_leaves_no_access_time(items: Items) -> None:
    os.utime(items.paths[0], ns=(1, 2))
    _native.read_file(items.paths[0])
    assert os.stat(items.paths[0]).st_atime_ns == 1


def test_an_empty_file_is_an_empty_item(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert _native.read_file(tmp_path / "empty") == b""
