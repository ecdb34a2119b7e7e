from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from coordl.errors import ItemError
from coordl.fetch.item import identify


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for i in range(600):
        (tmp_path / f"{i}.jpg").write_bytes(bytes(i))
    return [str(tmp_path / f"{i}.jpg") for i in range(600)]


def test_sizes_and_times_are_the_files_in_order(files: list[str]) -> None:
    items = identify(files, threads=4)
    assert items.sizes.tolist() == list(range(600))
    assert items.mtimes_ns.tolist() == [os.stat(path).st_mtime_ns for path in files]
    assert items.sizes.dtype == items.mtimes_ns.dtype == np.int64
    assert items.total_bytes == sum(range(600)) and len(items) == 600


def test_every_file_has_a_key_of_its_own_of_two_uint64(files: list[str]) -> None:
    keys = identify(files).keys
    assert keys.shape == (600, 2) and keys.dtype == np.uint64
    assert len(np.unique(keys, axis=0)) == 600


def test_keys_do_not_depend_on_threads_or_on_how_the_folder_is_reached(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = identify(files, threads=8).keys
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for others in ([f"{link}/{i}.jpg" for i in range(600)], [f"{i}.jpg" for i in range(600)]):
        assert np.array_equal(identify(others, threads=1).keys, keys)


@pytest.mark.parametrize("change", ["size", "mtime", "name"])
def test_a_changed_file_is_a_new_item(change: str, files: list[str], tmp_path: Path) -> None:
    before = identify(files[5:6]).keys
    stat = os.stat(files[5])
    path = files[5]
    if change == "size":
        Path(path).write_bytes(b"another length")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "mtime":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    else:
        path = str(tmp_path / "renamed.jpg")
        os.rename(files[5], path)
    assert not np.array_equal(identify([path]).keys, before)


def test_a_missing_file_is_named_with_its_index(files: list[str]) -> None:
    os.unlink(files[300])
    with pytest.raises(ItemError, match=r"sample 300: .*300\.jpg: No such file") as caught:
        identify(files, threads=8)
    assert (caught.value.index, caught.value.path) == (300, files[300])
    assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_or_pipe_among_the_files_is_refused(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="A sample must be a file"):
        identify([files[0], str(tmp_path)])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a pipe"):
        identify([str(tmp_path / "pipe")])


def test_no_files_are_no_items() -> None:
    items = identify([])
    assert len(items) == 0 and items.keys.shape == (0, 2)


def test_names_that_are_no_text_are_names_too(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.jpg"
    with open(raw, "wb") as file:
        file.write(b"x")
    assert identify([os.fsdecode(raw)]).sizes.tolist() == [1]
