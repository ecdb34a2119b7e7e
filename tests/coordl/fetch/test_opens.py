"""Data sets nobody knows: what their Python code opens to read comes from the cache."""
# ruff: noqa: SIM115

from __future__ import annotations

import builtins
import ctypes
import io
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from PIL import Image

from coordl.fetch import opens as module
from coordl.fetch.cache import MinIOCache
from coordl.fetch.held_file import HeldFile
from coordl.fetch.opens import COUNTED, Opens
from coordl.fetch.served import opens_cache
from coordl.fetch.tally import Tally

TEXT = "".join(f"zeile {i} ü\r\n" for i in range(3000))
DATA = TEXT.encode()
InFork = Callable[[Callable[[], object]], int]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.txt").write_bytes(DATA)
    return root / "a.txt"


@pytest.fixture
def opens(file: Path) -> Iterator[Opens]:
    with MinIOCache("4MiB", name="t-opens", form="original") as cache:
        made = Opens([str(file.parent)], cache, Tally(COUNTED, 0))
        yield made
        del made.cache, made.tally  # pytest keeps `made` a little longer
    assert builtins.open is io.open is module._open and os.open is module._os_open


def counts(opens: Opens, *names: str) -> tuple[int, ...]:
    now = opens.tally.totals()
    return tuple(now[name] for name in names)


def through_descriptor(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert os.fstat(descriptor).st_size == len(DATA)
        return b"".join(iter(lambda: os.read(descriptor, 1000), b""))
    finally:
        os.close(descriptor)


def mapped(path: Path) -> bytes:
    with open(path, "rb") as opened:
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return view[:]


def raw(path: Path) -> bytes:
    with open(path, "rb", buffering=0) as opened:
        assert isinstance(opened, io.RawIOBase)
        return b"".join(iter(lambda: opened.read(999), b""))


def lines(path: Path) -> bytes:
    with open(path, encoding="utf-8", newline="") as opened:
        assert (opened.mode, opened.name) == ("r", path)
        return "".join(opened).encode()


READERS: dict[str, Callable[[Path], bytes]] = {
    "open": lambda path: open(path, "rb").read(),
    "path as text": lambda path: open(str(path), "rb").read(),
    "path as bytes": lambda path: open(os.fsencode(path), "rb").read(),
    "io.open": lambda path: io.open(path, "rb").read(),  # noqa: UP020
    "pathlib": lambda path: path.read_bytes(),
    "text": lines,
    "universal newlines": lambda path: path.read_text("utf-8").replace("\n", "\r\n").encode(),
    "os.open": through_descriptor,
    "unbuffered": raw,
    "mmap": mapped,
    "numpy.fromfile": lambda path: np.fromfile(path, np.uint8).tobytes(),
    "numpy.memmap": lambda path: bytes(np.memmap(path, np.uint8, "r")),
    "after a read": lambda path: _fromfile_after_a_read(path),
    "a changed folder": lambda path: open(path.parent / ".." / "set" / path.name, "rb").read(),
}


def _fromfile_after_a_read(path: Path) -> bytes:
    with open(path, "rb") as opened:
        head = opened.read(10)
        return head + np.fromfile(opened, np.uint8).tobytes()


@pytest.mark.parametrize("reader", READERS)
def test_every_way_to_read_gives_the_files_bytes_from_the_cache(
    reader: str, file: Path, opens: Opens
) -> None:
    for _ in range(3):
        with opens:
            assert READERS[reader](file) == DATA
    assert counts(opens, "misses", "hits", "served_bytes") == (1, 2, 2 * len(DATA))
    assert counts(opens, "storage_bytes", "admitted_bytes") == (len(DATA), len(DATA))
    assert counts(opens, "bypassed_opens", "bypassed_bytes") == (0, 0)


def test_numpy_and_pillow_read_what_they_read_without_us(
    tmp_path: Path, photos: list[Path], opens: Opens
) -> None:
    root = Path(opens.folders[0])
    np.save(root / "x.npy", np.arange(1000))
    np.savez(root / "x.npz", a=np.arange(9), b=np.eye(3))
    torch.save({"w": torch.arange(9)}, root / "x.pt")
    (root / "p.jpg").write_bytes(photos[0].read_bytes())
    picture = Image.open(photos[0]).convert("RGB")
    picture.save(root / "p.bmp")  # Pillow maps uncompressed files
    for _ in range(2):
        with opens:
            assert np.array_equal(np.load(root / "x.npy"), np.arange(1000))
            assert np.array_equal(np.load(root / "x.npy", mmap_mode="r"), np.arange(1000))
            assert np.array_equal(np.load(root / "x.npz")["b"], np.eye(3))
            assert torch.equal(torch.load(root / "x.pt")["w"], torch.arange(9))
            assert Image.open(root / "p.jpg").convert("RGB").tobytes() == picture.tobytes()
            assert Image.open(root / "p.bmp").tobytes() == picture.tobytes()
    assert counts(opens, "misses", "bypassed_opens") == (5, 0)


def test_the_open_file_is_of_the_kind_that_open_gives(file: Path, opens: Opens) -> None:
    with opens, open(file, "rb") as served:
        assert isinstance(served, io.BufferedReader) and isinstance(served, HeldFile)
        assert (served.name, served.mode) == (file, "rb")
        assert not served.writable() and not served.isatty()
        with pytest.raises(io.UnsupportedOperation):
            served.write(b"x")
    with opens:
        descriptor = os.open(file, os.O_RDONLY)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(descriptor, b"x")
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)


def test_writing_is_never_touched(file: Path, opens: Opens) -> None:
    with opens:
        for mode in ("ab", "r+b", "wb", "w"):
            with open(file, mode) as opened:
                assert not isinstance(opened, HeldFile)
                opened.write("x" if mode == "w" else b"x")  # type: ignore[arg-type]
        with open(file.parent / "new", "xb") as opened:
            opened.write(b"new")
        assert file.read_bytes() == b"x" and (file.parent / "new").read_bytes() == b"new"
        os.close(os.open(file.parent / "newer", os.O_WRONLY | os.O_CREAT))
    assert counts(opens, "misses", "bypassed_opens") == (2, 0)


@pytest.mark.parametrize("change", ["content", "content and time", "rename", "truncate"])
def test_a_changed_file_is_never_served_as_it_was(change: str, file: Path, opens: Opens) -> None:
    with opens:
        assert file.read_bytes() == DATA
    before = os.stat(file)
    new = DATA[::-1]
    if change == "rename":
        (file.parent / "b").write_bytes(new)
        os.utime(file.parent / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.rename(file.parent / "b", file)
    elif change == "truncate":
        os.truncate(file, 100)
        new = DATA[:100]
    else:
        file.write_bytes(new)
        if change == "content and time":  # put back: the inode's own time tells
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with opens:
        assert file.read_bytes() == new
    assert counts(opens, "misses", "hits") == (2, 0)


def test_a_file_that_changes_while_it_is_read_is_left_to_the_real_open(
    file: Path, opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_whole(descriptor: int, size: int) -> bytes:
        data = os.read(descriptor, size + 1)
        file.write_bytes(DATA[::-1])
        return data

    monkeypatch.setattr(module, "_read_whole", read_whole)
    with opens:
        assert file.read_bytes() == DATA[::-1]
    assert counts(opens, "misses", "bypassed_opens") == (0, 1)
    assert opens.cache.stats()["items"] == 0


def test_errors_are_those_of_the_real_open(file: Path, opens: Opens) -> None:
    for broken, kind in (
        (lambda: open(file.parent / "none"), FileNotFoundError),
        (lambda: open(file.parent), IsADirectoryError),
        (lambda: open(file, "rb", encoding="utf-8"), ValueError),
        (lambda: open(file, "q"), ValueError),
        (lambda: open(file, buffering=0), ValueError),
        (lambda: open(None), TypeError),  # type: ignore[call-overload]
        (lambda: os.open(file.parent / "none", os.O_RDONLY), FileNotFoundError),
    ):
        with pytest.raises(kind) as plain:
            broken()
        with opens, pytest.raises(kind) as served:
            broken()
        assert str(served.value) == str(plain.value)


def test_only_files_below_the_folder_are_served(file: Path, opens: Opens) -> None:
    outside = file.parent.parent / "set.txt"  # its name begins as the folder's
    outside.write_bytes(b"outside")
    os.mkfifo(file.parent / "pipe")
    with opens:
        assert outside.read_bytes() == b"outside"
        assert (file.parent / ".." / "set.txt").read_bytes() == b"outside"
        descriptor = os.open(file.parent / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        os.close(descriptor)
        descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.close(descriptor)
    assert counts(opens, "misses", "hits") == (0, 0)


def test_the_folder_may_be_reached_by_a_link(file: Path, opens: Opens, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.parent)
    linked = Opens([str(tmp_path / "link")], opens.cache, opens.tally)
    with linked:
        assert (tmp_path / "link" / "a.txt").read_bytes() == DATA
        assert file.read_bytes() == DATA
    assert counts(opens, "bypassed_opens") == (0,)
    assert sum(counts(opens, "misses", "hits")) == 2
    del linked


def test_large_files_are_left_alone_and_counted(
    file: Path, opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_LIMIT_BYTES", len(DATA) - 1)
    with opens:
        assert file.read_bytes() == DATA
    assert counts(opens, "misses", "bypassed_opens", "bypassed_bytes") == (0, 1, len(DATA))


def test_what_does_not_fit_is_read_every_time(file: Path) -> None:
    with MinIOCache(len(DATA) * 2, name="t-full", form="original") as cache:
        for i in range(4):
            (file.parent / f"{i}").write_bytes(bytes([i]) * len(DATA))
        opens = Opens([str(file.parent)], cache, Tally(COUNTED, 0))
        for _ in range(3):
            for i in range(4):
                with opens:
                    assert (file.parent / f"{i}").read_bytes() == bytes([i]) * len(DATA)
        assert counts(opens, "hits", "misses", "bypassed_opens") == (4, 8, 0)
        assert counts(opens, "storage_bytes", "bypassed_bytes") == (8 * len(DATA), 0)


def test_reads_without_python_are_seen_in_bytes_and_opens_of_pythons_in_both(
    file: Path, opens: Opens
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def native() -> None:
        descriptor = libc.open(os.fsencode(file), os.O_RDONLY)
        buffer = ctypes.create_string_buffer(len(DATA))
        assert libc.read(descriptor, buffer, len(DATA)) == len(DATA)
        libc.close(descriptor)

    with opens:
        native()
    assert counts(opens, "bypassed_opens", "bypassed_bytes") == (0, len(DATA))
    with opens:
        with io.FileIO(file) as opened:  # Python's own, but not through open()
            opened.read(7)
        native()
        assert file.read_bytes() == DATA
    assert counts(opens, "bypassed_opens", "bypassed_bytes") == (1, 2 * len(DATA) + 7)
    assert counts(opens, "misses") == (1,)


def test_nothing_is_served_nor_counted_outside(file: Path, opens: Opens) -> None:
    before = builtins.open, io.open, os.open
    with opens:
        inside = open
    assert (builtins.open, io.open, os.open) == before
    assert file.read_bytes() == DATA
    with inside(file, "rb") as opened:  # kept by somebody: passes on
        assert opened.read() == DATA and not isinstance(opened, HeldFile)
    assert sum(opens.tally.totals().values()) == 0


def test_somebody_who_wraps_open_meanwhile_keeps_working(file: Path, opens: Opens) -> None:
    try:
        with opens:
            inner, seen = builtins.open, []

            def theirs(path: Any, *args: Any, **more: Any) -> Any:
                seen.append(path)
                return inner(path, *args, **more)

            builtins.open = theirs  # type: ignore[assignment]
        for _ in range(2):
            with opens:
                assert open(file, "rb").read() == DATA
            assert open(file, "rb").read() == DATA
        assert len(seen) == 4
        assert counts(opens, "misses", "hits") == (1, 1)
    finally:
        builtins.open, io.open, os.open = module._open, module._open, module._os_open
        module._in_chain = False


def test_threads_enter_and_leave_as_they_like(file: Path, opens: Opens) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                with opens:
                    assert file.read_bytes() == DATA
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_fork_inside_begins_without(file: Path, opens: Opens, in_fork: InFork) -> None:
    with opens:

        def child() -> None:
            assert builtins.open is module._open and os.open is module._os_open
            with opens:
                assert isinstance(open(file, "rb"), HeldFile)

        assert in_fork(child) == 0


def test_an_index_has_room_for_all_of_many_small_files(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / str(number)).write_bytes(b"small")
    with opens_cache("200%", str(tmp_path)) as cache:
        with Opens([str(tmp_path)], cache, Tally(COUNTED, 0)):
            for number in range(3000):
                assert (tmp_path / str(number)).read_bytes() == b"small"
        assert cache.stats()["items"] == 3000


def test_a_cache_on_a_disk_alone_serves_opens(file: Path, tmp_path: Path) -> None:
    with MinIOCache(0, name="t-disk", ssd=tmp_path / "ssd", ssd_budget="4MiB") as cache:
        opens = Opens([str(file.parent)], cache, Tally(COUNTED, 0))
        for _ in range(2):
            with opens:
                assert file.read_bytes() == DATA
        assert counts(opens, "misses", "hits", "bypassed_opens") == (1, 1, 0)
