"""What the machine does not allow, and files that are not ours: said, never a bus error."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordl import _native
from coordl.errors import CacheError
from coordl.fetch.cache import MinIOCache

InProcess = Callable[[str], subprocess.CompletedProcess[str]]
InFork = Callable[[Callable[[], object]], int]

MIB = 2**20


@pytest.fixture
def small_tmpfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A shared-memory directory of 16 MiB."""
    directory = tmp_path / "shm"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(directory)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount a tmpfs here (needs root)")
    monkeypatch.setenv("COORDL_SHM_DIR", str(directory))
    yield directory
    left = os.listdir(directory)
    subprocess.run(["umount", "-l", str(directory)], check=True)
    assert left == []


def fill(cache: MinIOCache, size: int = 100_000) -> int:
    count = 0
    while cache.admit((count, 1), bytes([count % 256]) * size):
        count += 1
    for i in range(count):
        held = cache.get((i, 1))
        assert held is not None and held[0] == held[-1] == i % 256
    return count


def test_a_budget_above_dev_shm_makes_a_smaller_arena_and_says_what_to_change(
    small_tmpfs: Path,
) -> None:
    with pytest.warns(UserWarning, match=r"instead of the 1 GiB asked for: .* has .* free; make"):
        cache = MinIOCache("1GiB", name="t-small", expected_items=1000)
    with cache:
        assert 12 * MIB < cache.budget_bytes < 16 * MIB
        fill(cache)
        assert cache.stats()["used_bytes"] > cache.budget_bytes - 100_000
        assert cache.stats()["stopped_errno"] == 0
        assert cache.verify() == []


def test_memory_that_became_short_since_ends_growth_but_nothing_held(small_tmpfs: Path) -> None:
    with MinIOCache("10MiB", name="t-short", expected_items=1000) as cache:
        other = small_tmpfs / "another job's"
        with other.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 10 * MIB)
        with pytest.warns(UserWarning, match=r"stopped growing at .* make it larger"):
            count = fill(cache)
        assert 0 < count * 100_000 < 6 * MIB
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # told once is enough
            assert not cache.admit((0, 2), bytes(10 * MIB))
        assert cache.verify() == []
        other.unlink()


def test_no_room_at_all_is_a_cache_error_and_leaves_no_file(small_tmpfs: Path) -> None:
    other = small_tmpfs / "another job's"
    with other.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 15 * MIB)
    with pytest.raises(CacheError, match=r"does not fit in .* Free memory, or raise the limit"):
        MinIOCache("10MiB", name="t-none")
    assert os.listdir(small_tmpfs) == ["another job's"]
    other.unlink()


def test_a_memory_cgroup_makes_the_arena_smaller_instead_of_killing(in_fork: InFork) -> None:
    group = _own_cgroup() / f"coordl-test-{os.getpid()}"
    try:
        group.mkdir()
        v1 = group / "memory.limit_in_bytes"
        (v1 if v1.exists() else group / "memory.max").write_text(str(400 * MIB))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"cannot make a memory cgroup here: {error}")

    def limited() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        limits = _native.memory_limits()
        assert limits["cgroup_bytes"] == 400 * MIB and limits["limit"] == "cgroup"
        with pytest.warns(UserWarning, match="raise the container's or job's memory limit"):
            cache = MinIOCache("2GiB", name="t-cgroup", expected_items=1000)
        assert cache.budget_bytes < 400 * MIB
        fill(cache, 4 * MIB)
        assert cache.stats()["used_bytes"] > 200 * MIB
        cache.close()

    try:
        assert in_fork(limited) == 0
    finally:
        group.rmdir()


def _own_cgroup() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory" + path)
    return Path("/sys/fs/cgroup" + path)


def test_more_than_ulimit_f_is_an_error_not_a_signal(in_process: InProcess) -> None:
    done = in_process(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "from coordl.fetch.cache import MinIOCache\n"
        "MinIOCache('10MiB', name='t-fsize')\n"
    )
    assert done.returncode == 1
    assert "ulimit -f" in done.stderr


def paths_of(directory: Path, name: str) -> tuple[Path, Path]:
    file = directory / f"coordl.{os.geteuid()}.{name}"
    return file, Path(f"{file}.lock")


@pytest.mark.parametrize("which", [0, 1])
def test_a_symbolic_link_in_our_place_is_refused(which: int, shm_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    link = paths_of(shm_dir, "t-link")[which]
    link.symlink_to(victim)
    with pytest.raises(OSError, match=r"symbolic link|no plain file"):
        MinIOCache(1000, name="t-link")
    assert victim.read_text() == "precious"
    link.unlink()


@pytest.mark.parametrize("which", [0, 1])
def test_another_users_file_in_our_place_is_refused(which: int, shm_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make another user's file")
    file = paths_of(shm_dir, "t-foreign")[which]
    file.touch(0o600)
    os.chown(file, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to user 12345"):
        MinIOCache(1000, name="t-foreign")
    assert file.exists()
    file.unlink()


def test_a_lock_file_open_to_others_is_refused(shm_dir: Path) -> None:
    _, lock = paths_of(shm_dir, "t-open")
    lock.touch()
    lock.chmod(0o666)
    with pytest.raises(PermissionError, match="open to others"):
        MinIOCache(1000, name="t-open")
    lock.unlink()


def change_version(file: Path) -> None:
    with file.open("r+b") as arena:
        arena.seek(8)
        arena.write((99).to_bytes(4, "little"))


def test_another_versions_arena_in_use_is_an_error_that_says_so(
    shm_dir: Path, in_process: InProcess
) -> None:
    with MinIOCache(1000, name="t-version"):
        change_version(paths_of(shm_dir, "t-version")[0])
        done = in_process(
            "from coordl.fetch.cache import MinIOCache\nMinIOCache(1000, name='t-version')\n"
        )
        assert "CacheError" in done.stderr
        assert "layout version 99, this coordl reads version 3" in done.stderr
        assert "coordl clear t-version --force" in done.stderr
        assert [arena["readable"] for arena in _native.list_arenas()] == [False]


def test_another_versions_arena_without_users_is_made_anew(shm_dir: Path, in_fork: InFork) -> None:
    def killed() -> None:
        _kept = MinIOCache(1000, name="t-version")
        change_version(paths_of(shm_dir, "t-version")[0])
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(killed) == -signal.SIGKILL
    with MinIOCache(1000, name="t-version") as cache:
        assert cache.admit((1, 1), b"x")


def test_another_versions_kept_arena_is_an_error_that_says_how_to_remove_it(
    shm_dir: Path, in_fork: InFork
) -> None:
    assert in_fork(lambda: MinIOCache(1000, name="t-kept", persist=True).close()) == 0
    file = paths_of(shm_dir, "t-kept")[0]
    change_version(file)
    with pytest.raises(CacheError, match=r"layout version 99.* coordl clear t-kept$"):
        MinIOCache(1000, name="t-kept")
    assert _native.reap_arenas() == []
    assert [arena["readable"] for arena in _native.list_arenas()] == [False]
    assert file.exists()
    _native.clear_arena("t-kept")


@pytest.mark.parametrize("offset", [*range(16, 64, 4), 128, 132, 196])
def test_a_damaged_header_is_refused_not_followed(offset: int, shm_dir: Path) -> None:
    with MinIOCache(1000, name="t-damaged", persist=True):
        pass
    with paths_of(shm_dir, "t-damaged")[0].open("r+b") as arena:
        arena.seek(offset)
        was = arena.read(4)
        arena.seek(offset)
        arena.write(bytes(b ^ 0x5A for b in was))
    assert not _native.list_arenas()[0]["readable"]
    with pytest.raises(OSError, match="contradicts itself"):
        _native.verify_arena("t-damaged")
    with pytest.raises(CacheError, match=r"contradicts itself.* coordl clear t-damaged$"):
        MinIOCache(1000, name="t-damaged")
    _native.clear_arena("t-damaged")


def test_an_arena_file_open_to_others_is_refused(shm_dir: Path) -> None:
    file, _ = paths_of(shm_dir, "t-mode")
    with MinIOCache(1000, name="t-mode", persist=True):
        pass
    file.chmod(0o644)
    with pytest.raises(PermissionError, match="open to others"):
        MinIOCache(1000, name="t-mode")
    with pytest.raises(PermissionError, match="open to others"):
        _native.verify_arena("t-mode")
    file.chmod(0o600)
    _native.clear_arena("t-mode")


def test_a_directory_we_may_not_write_is_a_permission_error(shm_dir: Path, in_fork: InFork) -> None:
    def another_user() -> None:
        os.seteuid(12345)
        with pytest.raises(PermissionError, match="cannot open"):
            MinIOCache(1000, name="t-denied")
        assert _native.list_arenas() == []

    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    assert in_fork(another_user) == 0


def test_a_budget_beyond_the_address_space_is_raised_as_far_as_it_goes(shm_dir: Path) -> None:
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 * MIB, was[1]))
    try:
        cache = MinIOCache("2MiB", name="t-space", expected_items=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    with cache:
        with pytest.warns(UserWarning, match=r"address space for no more.* coordl clear t-space"):
            MinIOCache("1GiB", name="t-space", expected_items=100).close()
        stats = cache.stats()
        assert 2 * MIB <= stats["budget_bytes"] == stats["most_bytes"] < 3 * MIB


def test_growth_that_stopped_goes_on_when_the_arena_is_next_opened(small_tmpfs: Path) -> None:
    with MinIOCache("10MiB", name="t-again", expected_items=1000) as cache:
        other = small_tmpfs / "another job's"
        with other.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 10 * MIB)
        with pytest.warns(UserWarning, match=r"the next open lets it grow again"):
            held = fill(cache)
        other.unlink()
        assert not cache.admit((held, 1), bytes(100_000))
        with MinIOCache("10MiB", name="t-again", expected_items=1000) as again:
            assert again.stats()["stopped_errno"] == 0
            assert fill(cache) == 10 * MIB // 100_000 > held
        assert cache.verify() == []
