"""The second tier: on a disk, there again in the next process, believed only when it checks."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordl import _native
from coordl.errors import CacheError
from coordl.fetch.cache import MinIOCache

InFork = Callable[[Callable[[], object]], int]


def item(i: int) -> bytes:
    return i.to_bytes(2, "little") * 500


def open_cache(ssd: Path, budget: int = 20_000, ssd_budget: int = 50_000, **more) -> MinIOCache:
    return MinIOCache(
        budget, name="t-tiers", expected_items=100, ssd=ssd, ssd_budget=ssd_budget, **more
    )


def admit_all(cache: MinIOCache, count: int = 100) -> list[int]:
    return [i for i in range(count) if cache.admit((i, ~i % 2**64), item(i))]


def found(cache: MinIOCache, count: int = 100) -> list[int]:
    held = [i for i in range(count) if cache.get((i, ~i % 2**64)) is not None]
    assert all(cache.get((i, ~i % 2**64)) == item(i) for i in held)
    return held


def arena_file(ssd: Path) -> Path:
    (file,) = [path for path in ssd.iterdir() if path.suffix != ".lock"]
    return file


def test_memory_first_then_the_disk_and_each_item_once(tmp_path: Path) -> None:
    with open_cache(tmp_path / "ssd") as cache:
        assert admit_all(cache) == list(range(70)) == found(cache)
        assert admit_all(cache, 70) == list(range(70))  # held already
        stats = cache.stats()
        assert (stats["items"], stats["ssd_items"]) == (20, 50)
        assert (stats["used_bytes"], stats["ssd_used_bytes"]) == (20_000, 50_000)
        on_disk = [i for i in range(70) if cache.lies_on_ssd((i, ~i % 2**64))]
        assert on_disk == list(range(20, 70))
        assert cache.verify() == []


def test_what_the_disk_holds_is_there_for_the_next_run(tmp_path: Path, in_fork: InFork) -> None:
    def first() -> None:
        with open_cache(tmp_path / "ssd") as cache:
            admit_all(cache)

    assert in_fork(first) == 0
    with open_cache(tmp_path / "ssd") as cache:
        assert found(cache) == list(range(20, 70))
        assert admit_all(cache) == list(range(70))  # memory takes those the disk does not hold
        assert cache.stats()["items"] == 20


def test_a_killed_process_leaves_a_disk_that_serves(tmp_path: Path, in_fork: InFork) -> None:
    def killed() -> None:
        cache = open_cache(tmp_path / "ssd")
        admit_all(cache)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(killed) == -signal.SIGKILL
    with open_cache(tmp_path / "ssd", budget=0) as cache:
        assert found(cache) == list(range(20, 70))
        assert cache.verify() == []


ADMISSION = ("reserve:", "write:", "publish:", "count:")


@pytest.mark.parametrize("step", [s for s in _native._steps if s.startswith(ADMISSION)])
def test_a_kill_at_any_step_of_admission_leaves_sound_records(
    tmp_path: Path, in_fork: InFork, step: str
) -> None:
    def killed() -> None:
        cache = open_cache(tmp_path / "ssd", budget=0)
        admit_all(cache, 10)
        _native._signal_at({step: signal.SIGKILL})
        cache.admit((10, ~10 % 2**64), item(10))

    assert in_fork(killed) == -signal.SIGKILL
    with open_cache(tmp_path / "ssd", budget=0) as cache:
        assert found(cache, 10) == list(range(10))
        assert cache.admit((10, ~10 % 2**64), item(10))
        assert found(cache, 20) == list(range(11))


def test_only_the_disk_when_memory_gets_nothing(tmp_path: Path, shm_dir: Path) -> None:
    with open_cache(tmp_path / "ssd", budget=0) as cache:
        assert admit_all(cache) == list(range(50)) == found(cache)
        assert list(shm_dir.iterdir()) == []
        assert cache.stats()["budget_bytes"] == 0
        with pytest.raises(CacheError, match="no tier in memory"):
            _ = cache.arena


def test_a_damaged_record_is_a_miss_and_its_item_may_come_again(
    tmp_path: Path, in_fork: InFork
) -> None:
    def fill() -> None:
        with open_cache(tmp_path / "ssd", budget=0) as cache:
            admit_all(cache, 10)

    assert in_fork(fill) == 0
    file = arena_file(tmp_path / "ssd")
    with file.open("r+b") as arena:
        arena.seek(file.read_bytes().index(item(3)) + 100)
        arena.write(b"damage")
    with open_cache(tmp_path / "ssd", budget=0) as cache:
        assert cache.stats()["ssd_damaged_items"] == 0
        for _ in range(2):
            assert found(cache, 10) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
            assert cache.stats()["ssd_damaged_items"] == 1
        with pytest.warns(UserWarning, match=r"not as they were.*1 met so far.*--ssd /"):
            cache.warn_of_troubles()
        assert cache.admit((3, ~3 % 2**64), item(3))
        assert found(cache, 10) == list(range(10))
        assert cache.stats()["ssd_items"] == 11
        assert not cache.admit((3, ~3 % 2**64), item(3)) or cache.stats()["ssd_items"] == 11


def test_a_budget_of_no_disk_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ssd_budget='1GiB' needs ssd="):
        MinIOCache("1MiB", name="t-none", ssd_budget="1GiB")


def test_an_item_of_ours_whose_structure_is_wrong_is_a_miss(
    tmp_path: Path, in_fork: InFork
) -> None:
    """Its checksum fits: whoever wrote the file can write that too."""
    photo = Path(__file__).parents[2] / "data" / "coffee.jpg"
    packed = bytearray(_native.recode(photo.read_bytes(), "packed"))
    bad = bytearray(packed)
    bad[24 + 3 * 128 : 24 + 3 * 128 + 400] = b"\xff" * 400  # its directory

    def fill() -> None:
        with open_cache(tmp_path / "ssd", budget=0, ssd_budget=10 << 20) as cache:
            cache.admit((1, 1), bytes(packed))

    assert in_fork(fill) == 0
    file = arena_file(tmp_path / "ssd")
    at = file.read_bytes().index(packed[:64])
    with file.open("r+b") as arena:
        arena.seek(at)
        arena.write(bad)
        arena.seek(at - 64 + 32)  # the record's checksum
        arena.write(_native.checksum(bytes(bad), 1, 1).to_bytes(8, "little"))
    with open_cache(tmp_path / "ssd", budget=0, ssd_budget=10 << 20) as cache:
        assert cache.get((1, 1)) is None
        assert len(cache.verify()) == 1


def test_a_file_of_nonsense_is_made_anew(tmp_path: Path, in_fork: InFork) -> None:
    def fill() -> None:
        with open_cache(tmp_path / "ssd", budget=0) as cache:
            admit_all(cache, 10)

    assert in_fork(fill) == 0
    with arena_file(tmp_path / "ssd").open("r+b") as arena:
        arena.write(b"nonsense" * 512)
    with open_cache(tmp_path / "ssd", budget=0) as cache:
        assert found(cache, 10) == []
        assert admit_all(cache, 10) == list(range(10))


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bytes_anywhere_are_misses_never_wrong_items_nor_a_crash(
    tmp_path: Path, in_fork: InFork, seed: int
) -> None:
    import random

    def fill() -> None:
        with open_cache(tmp_path / "ssd", budget=0) as cache:
            admit_all(cache, 40)

    assert in_fork(fill) == 0
    rng, file = random.Random(seed), arena_file(tmp_path / "ssd")
    used = 4096 + 64 * 1024 + 8 * 1024 + 40 * 1100
    with file.open("r+b") as arena:
        for _ in range(300):
            arena.seek(rng.randrange(4096, used))
            arena.write(rng.randbytes(1))

    def read() -> None:
        with open_cache(tmp_path / "ssd", budget=0) as cache:
            assert len(found(cache, 40)) <= 40
            admit_all(cache, 40)
            found(cache, 40)

    assert in_fork(read) == 0


def test_shared_memory_and_reaping_never_touch_what_is_kept(shm_dir: Path, in_fork: InFork) -> None:
    """Even where somebody names the directory of shared memory for it."""

    def fill() -> None:
        with open_cache(shm_dir, budget=0) as cache:
            admit_all(cache, 10)

    assert in_fork(fill) == 0
    _native.reap_arenas()
    with MinIOCache(1000, name="t-other"):
        pass
    with open_cache(shm_dir, budget=0) as cache:
        assert found(cache, 10) == list(range(10))
    for path in shm_dir.iterdir():
        path.unlink()


def test_pickled_and_forked_caches_share_both_tiers(tmp_path: Path, in_fork: InFork) -> None:
    with open_cache(tmp_path / "ssd") as cache, warnings.catch_warnings():
        warnings.simplefilter("error")
        admit_all(cache)
        assert in_fork(lambda: found(cache)) == 0
        with pickle.loads(pickle.dumps(cache)) as copy:
            assert found(copy) == list(range(70))


def test_a_directory_nobody_may_write_to_is_a_cache_error(tmp_path: Path, in_fork: InFork) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)

    def opens() -> None:
        if os.geteuid() == 0:
            os.chmod(tmp_path, 0o755)
            os.seteuid(65534)
        with pytest.raises(CacheError, match=r"ssd='.*locked'.*Name a directory of a local disk"):
            open_cache(locked, budget=0)

    assert in_fork(opens) == 0
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"cannot be kept in ssd="):
        open_cache(tmp_path / "file", budget=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "disk"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(directory)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a file system here (needs root)")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_makes_a_smaller_tier_and_then_none(small_disk: Path) -> None:
    with pytest.warns(UserWarning, match=r"cache t-tiers in .* holds .* instead of the 1 GiB"):
        cache = open_cache(small_disk, budget=0, ssd_budget=1 << 30)
    with cache:
        other = small_disk / "other"
        with other.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 5 << 20)
        with pytest.warns(UserWarning, match=r"as the disk became short: its file system has"):
            held = 0
            while cache.admit((held, 1), bytes(50_000)):
                held += 1
        assert held > 0
        assert all(cache.get((i, 1)) == bytes(50_000) for i in range(held))
    for path in small_disk.iterdir():
        path.unlink()
    with (small_disk / "other").open("wb") as file:
        left = os.statvfs(small_disk)
        os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize)
    with pytest.raises(CacheError, match=r"cannot be kept in ssd=.*Name a directory"):
        open_cache(small_disk, budget=0)


def test_bad_budgets_are_called_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ssd_budget='lots' is no size"):
        MinIOCache("1MiB", ssd=tmp_path, ssd_budget="lots")
    with pytest.raises(ValueError, match=r"cache=0 is 0 bytes"):
        MinIOCache(0)
    with pytest.raises(CacheError, match="not open yet"):
        MinIOCache("50%").get((1, 1))


def test_what_memory_kept_from_other_jobs_is_checked_before_its_first_use(
    shm_dir: Path, in_fork: InFork
) -> None:
    photo = Path(__file__).parents[2] / "data" / "coffee.jpg"
    packed = _native.recode(photo.read_bytes(), "packed")

    def fill() -> None:
        with MinIOCache("8MiB", name="t-kept", expected_items=10, persist=True) as cache:
            assert cache.admit((1, 1), packed) and cache.admit((2, 2), item(7))

    assert in_fork(fill) == 0
    (file,) = [path for path in shm_dir.iterdir() if path.suffix != ".lock"]
    with file.open("r+b") as arena:
        arena.seek(arena.read(8 << 20).index(packed[24:88]) + 500)
        arena.write(b"\xff" * 400)
    try:
        with MinIOCache("8MiB", name="t-kept", expected_items=10) as cache:
            assert cache.get((1, 1)) is None
            assert cache.get((2, 2)) == item(7)
            assert len(cache.verify()) == 1
    finally:
        _native.clear_arena("t-kept", True)


def test_a_view_of_memory_that_is_written_to_is_copied_before_it_is_checked() -> None:
    """Otherwise other bytes than those checked could be admitted: here, the view says so."""
    buffer = bytearray(item(1))
    with MinIOCache("1MiB", name="t-view", expected_items=10) as cache:
        assert cache.admit((1, 1), memoryview(buffer).toreadonly())
        buffer[:] = bytes(len(buffer))
        assert cache.get((1, 1)) == item(1)


def test_an_exporter_of_items_cannot_be_made_from_nothing() -> None:
    with pytest.raises((BufferError, TypeError)):
        memoryview(_native._Item.__new__(_native._Item))
