"""fsspec.open("coordl::..."): any library reads whole objects from the never-evict cache."""

from __future__ import annotations

import gc
import io
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from moody_server import MoodyServer

from coordl import _native
from coordl.errors import CacheError
from coordl.fetch import remote
from coordl.fetch.cache import MinIOCache
from coordl.fetch.filesystem import CachedFileSystem
from coordl.fetch.held_file import HeldFile

DATA = b"".join(b"line %d\n" % i for i in range(5000))
InFork = Callable[[Callable[[], object]], int]


@pytest.fixture(scope="module", autouse=True)
def event_loop() -> None:
    fsspec.asyn.get_loop()  # fsspec starts it once and keeps it


@pytest.fixture(autouse=True)
def no_arena_left(shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COORDL_CACHE", "4MiB")
    yield
    CachedFileSystem.clear_instance_cache()
    gc.collect()


@pytest.fixture
def memory(memory: Any) -> Any:
    memory.pipe("/set/a.txt", DATA)
    return memory


@pytest.fixture
def server(server: MoodyServer) -> MoodyServer:
    server.objects["/a"] = DATA
    return server


def stats_of(url: str, **options: Any) -> dict[str, Any]:
    return dict(fsspec.url_to_fs(url, **options)[0].stats())


def test_a_chained_url_is_served_from_the_cache(memory: Any) -> None:
    url = "coordl::memory://set/a.txt"
    for _ in range(3):
        with fsspec.open(url) as file:
            assert isinstance(file, HeldFile) and file.size == len(DATA)
            assert file.read() == DATA
    stats = stats_of(url)
    assert (stats["hits"], stats["misses"], stats["cache_items"]) == (2, 1, 1)
    assert stats["served_bytes"] == 2 * len(DATA)


def test_text_compression_globs_and_listings_work_as_ever(memory: Any) -> None:
    with fsspec.open("coordl::memory://set/a.txt", "rt") as file:
        assert file.readlines()[4999] == "line 4999\n"
    with fsspec.open("coordl::memory://set/b.gz", "wb", compression="infer") as file:
        file.write(DATA)
    assert memory.exists("/set/b.gz")
    with fsspec.open("coordl::memory://set/b.gz", compression="infer") as file:
        assert file.read() == DATA
    files = fsspec.open_files("coordl::memory://set/*.txt")
    assert [file.path for file in files] == ["/set/a.txt"]
    fs, path = fsspec.url_to_fs("coordl::memory://set")
    assert fs.ls(path, detail=False) == memory.ls(path, detail=False)
    assert fs.find(path) == memory.find(path) and fs.glob("/set/*") == memory.glob("/set/*")
    assert fs.info("/set/a.txt") == memory.info("/set/a.txt")
    assert fs.exists("/set/a.txt") and not fs.exists("/set/c") and fs.isdir("/set")
    assert fs.unstrip_protocol("/set/a.txt") == "coordl::memory:///set/a.txt"


@pytest.mark.parametrize(("start", "end"), [(0, 5), (7, None), (-9, None), (None, -1), (3, 3)])
def test_byte_ranges_are_cut_from_the_whole_object(
    start: int | None, end: int | None, memory: Any
) -> None:
    fs = CachedFileSystem(memory)
    assert fs.cat_file("/set/a.txt", start, end) == DATA[start:end]
    assert fs.cat_ranges(["/set/a.txt"], [1], [4]) == [DATA[1:4]]
    assert fs.stats()["misses"] == 1 and fs.stats()["hits"] == 1


def test_a_file_seeks_and_reads_like_any_other(memory: Any) -> None:
    plain = io.BytesIO(DATA)
    with CachedFileSystem(memory).open("/set/a.txt") as file:
        rng = np.random.default_rng(0)
        for step in range(300):
            if step % 3 == 0:
                at = int(rng.integers(0, len(DATA) + 50))
                assert file.seek(at) == plain.seek(at)
            elif step % 3 == 1:
                count = int(rng.integers(0, 20000))
                assert file.read(count) == plain.read(count)
            else:
                assert file.readline() == plain.readline()
            assert file.tell() == plain.tell()
        assert file.seek(-10, os.SEEK_END) and file.read() == DATA[-10:]
        with pytest.raises(OSError):
            file.seek(-1)
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
    with pytest.raises(ValueError):
        file.read()


def test_what_is_written_is_read_next_even_where_looks_hold(memory: Any) -> None:
    fs = CachedFileSystem(memory, recheck_s=3600)
    assert fs.cat("/set/a.txt") == DATA
    with fs.open("/set/a.txt", "wb") as file:
        file.write(b"new")
    assert fs.cat("/set/a.txt") == b"new" == memory.cat("/set/a.txt")
    fs.pipe("/set/a.txt", b"newer")
    assert fs.cat("/set/a.txt") == b"newer"
    fs.rm("/set/a.txt")
    with pytest.raises(FileNotFoundError, match=r"memory:///set/a\.txt"):
        fs.cat("/set/a.txt")


def test_local_files_and_their_changes(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.arange(100))
    url = f"coordl::file://{file}"
    for _ in range(2):
        with fsspec.open(url) as opened:
            assert np.array_equal(np.load(opened), np.arange(100))
    np.save(file, np.arange(100) + 1)
    with fsspec.open(url) as opened:
        assert np.array_equal(np.load(opened), np.arange(100) + 1)
    stats = stats_of(url)
    assert (stats["hits"], stats["misses"]) == (1, 2)


def test_http_is_read_once(server: MoodyServer) -> None:
    url = f"coordl::{server.url}/a"
    for _ in range(3):
        with fsspec.open(url, coordl={"recheck_s": 3600}) as file:
            assert file.read() == DATA
    assert server.gets("/a") == 1 and len(server.requests) == 3


def test_the_budget_comes_from_the_options_or_the_environment(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stats_of("coordl::memory://set/a.txt")["cache_budget"] == 4 << 20
    with pytest.warns(UserWarning, match=r"was opened with '4MiB' before"):
        stats = stats_of("coordl::memory://set/a.txt", coordl={"cache": "2MiB"})
    assert stats["cache_budget"] == 4 << 20
    stats = stats_of("coordl::memory://set/a.txt", coordl={"cache": "2MiB", "name": "t-other"})
    assert stats["cache_budget"] == 2 << 20
    monkeypatch.delenv("COORDL_CACHE")
    limits = {"allowed_bytes": 8 << 20, "limit": "cgroup"}
    monkeypatch.setattr(_native, "memory_limits", lambda: limits)
    stats = stats_of("coordl::memory://set/a.txt", coordl={"name": "t-auto"})
    assert stats["cache_budget"] == 6 << 20
    assert stats["cache_limit"].startswith("three quarters of what the memory control group leaves")


def test_an_object_beyond_the_cache_is_read_in_part_below(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "WHOLE_BYTES", 1000)
    with MinIOCache("1MiB", name="t-small", form="original") as cache:
        fs = CachedFileSystem(memory, cache)
        memory.pipe("/set/big", bytes(2 << 20))
        with fs.open("/set/big") as file:
            assert not isinstance(file, HeldFile) and file.read(5) == bytes(5)
        assert fs.cat_file("/set/big", 0, 7) == bytes(7)
        assert fs.stats()["misses"] == 2 and fs.stats()["storage_bytes"] == 0
        assert len(fs.cat("/set/big")) == 2 << 20
        del fs


def test_two_storages_never_meet(tmp_path: Path) -> None:
    """The same path below, in one arena: told apart by where the file systems are."""
    for name, content in (("one", b"1"), ("two", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(content)
        os.utime(tmp_path / name / "x", ns=(0, 0))
    with MinIOCache("1MiB", name="t-two", form="original") as cache:
        for name, content in (("one", b"1"), ("two", b"2")) * 2:
            below = fsspec.filesystem(
                "dir", path=str(tmp_path / name), fs=fsspec.filesystem("file")
            )
            assert CachedFileSystem(below, cache).cat("x") == content


def test_pickles_open_the_same_arena(memory: Any) -> None:
    fs = CachedFileSystem(memory, "2MiB", recheck_s=5, timeout_s=7, attempts=3)
    fs.cat("/set/a.txt")
    other = pickle.loads(pickle.dumps(fs))
    assert other.cat("/set/a.txt") == DATA
    assert (other.stats()["hits"], other.stats()["misses"]) == (1, 0)
    assert (other.reader.recheck_s, other.reader.timeout_s) == (5, 7)
    assert other.reader.retry.attempts == 3
    file = pickle.loads(pickle.dumps(fsspec.open("coordl::memory://set/a.txt")))
    with file as opened:
        assert opened.read() == DATA


def test_a_forked_child_goes_on_also_with_an_async_file_system(
    server: MoodyServer, in_fork: InFork
) -> None:
    url = f"coordl::{server.url}/a"
    fs, path = fsspec.url_to_fs(url)
    assert fs.cat(path) == DATA
    server.objects["/b"] = DATA[::-1]

    def child() -> None:
        assert fs.cat(path) == DATA
        assert fs.cat(f"{server.url}/b") == DATA[::-1]
        with fsspec.open(url) as file:
            assert file.read() == DATA

    assert in_fork(child) == 0
    assert server.gets("/a") == server.gets("/b") == 1
    assert fs.cat(f"{server.url}/b") == DATA[::-1]  # what the child admitted
    assert server.gets("/b") == 1


def test_a_spawned_process_shares_it_and_leaves_nothing(
    tmp_path: Path, in_process: Callable[[str], subprocess.CompletedProcess[str]], shm_dir: Path
) -> None:
    (tmp_path / "x").write_bytes(DATA)
    source = (
        "import fsspec\n"
        f"fs, path = fsspec.url_to_fs('coordl::file://{tmp_path}/x')\n"
        "fs.cat(path); s = fs.stats(); print(s['hits'], s['misses'])\n"
    )
    assert in_process(source).stdout == "0 1\n"
    assert os.listdir(shm_dir) == []
    with fsspec.open(f"coordl::file://{tmp_path}/x") as file:
        file.read()
    assert in_process(source).stdout == "1 0\n"


def test_importing_coordl_does_not_import_fsspec(
    in_process: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = in_process("import sys, coordl; print('fsspec' in sys.modules)")
    assert done.stdout == "False\n"


def test_no_file_system_or_two_are_refused(memory: Any) -> None:
    with pytest.raises(ValueError, match="chain its URL"):
        CachedFileSystem()
    with pytest.raises(ValueError, match="one of them"):
        CachedFileSystem(memory, target_protocol="memory")
    with pytest.raises(ValueError, match="asynchronous=False"):
        CachedFileSystem(fsspec.filesystem("http", asynchronous=True, skip_instance_cache=True))


def test_an_option_nobody_knows_is_refused(memory: Any) -> None:
    with pytest.raises(TypeError, match=r"unknown option 'cash'; known are cache, name"):
        fsspec.open("coordl::memory://set/a.txt", coordl={"cash": "2MiB"})
    with fsspec.open("coordl::memory://set/a.txt", coordl={"skip_instance_cache": True}) as file:
        assert file.read() == DATA


@pytest.mark.parametrize(
    ("budget", "said"), [("65%", "write the size in bytes"), ("much", "'2GiB' or 'auto'$")]
)
def test_a_budget_that_means_nothing_here_is_told_without_offering_it(
    budget: str, said: str, memory: Any
) -> None:
    with pytest.raises(ValueError, match=said):
        CachedFileSystem(memory, budget, name="t-none")


def test_objects_that_memory_has_no_room_for_go_to_the_disk(tmp_path: Path) -> None:
    below = fsspec.filesystem("memory")
    objects = {f"/ssd-tier/{number}": bytes([number]) * 200_000 for number in range(20)}
    for path, data in objects.items():
        below.pipe_file(path, data)
    with MinIOCache("1MiB", name="t-ssd", ssd=tmp_path, ssd_budget="16MiB") as cache:
        above = CachedFileSystem(below, cache)
        for _ in range(2):
            for path, data in objects.items():
                assert above.cat_file(path) == data
        stats = cache.stats()
        assert stats["items"] > 0 and stats["items"] + stats["ssd_items"] == len(objects)
        assert above.stats()["hits"] == len(objects)
    below.rm("/ssd-tier", recursive=True)


def test_a_cache_without_a_name_is_refused_at_once() -> None:
    with pytest.raises(CacheError, match="give it a name="):
        CachedFileSystem(fsspec.filesystem("memory"), MinIOCache("1MiB"))
