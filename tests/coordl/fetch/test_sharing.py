"""One arena, many processes: what they share, and who keeps it alive."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from coordl import _native
from coordl.fetch.cache import MinIOCache

InFork = Callable[[Callable[[], object]], int]
InProcess = Callable[[str], subprocess.CompletedProcess[str]]


def item(i: int) -> bytes:
    return random.Random(i).randbytes(200 + i * 97 % 3000)


def admit_all(cache: MinIOCache, count: int) -> None:
    for i in range(count):
        if cache.admit((i, ~i % 2**64), item(i)):
            assert cache.get((i, ~i % 2**64)) == item(i)


def holds_seven(cache: MinIOCache) -> None:
    assert cache.get((7, 7)) == b"seven"
    assert cache.admit((8, 8), b"eight")


def test_eight_processes_admitting_the_same_items_keep_each_once() -> None:
    count = 150
    total = sum(len(item(i)) for i in range(count))
    with MinIOCache(total, name="t-eight", expected_items=count) as cache:
        fork = multiprocessing.get_context("fork")
        workers = [fork.Process(target=admit_all, args=(cache, count)) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 8
        assert cache.stats()["used_bytes"] <= total
        # While the loser of a race held room another item may have been refused; it fits now.
        admit_all(cache, count)
        stats = cache.stats()
        assert (stats["items"], stats["used_bytes"]) == (count, total)
        assert cache.verify() == []


def test_forked_and_spawned_children_use_the_same_arena() -> None:
    with MinIOCache(1000, name="t-children") as cache:
        cache.admit((7, 7), b"seven")
        for method in ("fork", "spawn"):
            context = multiprocessing.get_context(method)
            child = context.Process(target=holds_seven, args=(cache,))
            child.start()
            child.join()
            assert child.exitcode == 0
        assert cache.get((8, 8)) == b"eight"


def test_a_forked_child_counts_as_a_user_from_its_first_use(in_fork: InFork) -> None:
    with MinIOCache(1000, name="t-users") as cache:

        def child() -> None:
            assert cache.get((1, 1)) is None
            assert cache.stats()["users"] == 2

        assert in_fork(child) == 0
        assert cache.stats()["users"] == 1


def test_a_child_keeps_the_arena_of_a_parent_that_left(shm_dir: Path, in_fork: InFork) -> None:
    def parent() -> None:
        cache = MinIOCache(1000, name="t-orphan")
        cache.admit((7, 7), b"seven")
        used, left = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            holds_seven(cache)
            os.write(used[1], b"x")
            os.read(left[0], 1)
            with MinIOCache(1000, name="t-orphan") as again:
                holds_seven(again)
            cache.close()
            os._exit(0 if list(shm_dir.iterdir()) == [] else 1)
        os.read(used[0], 1)
        cache.close()
        assert len(list(shm_dir.iterdir())) == 2
        os.write(left[1], b"x")
        assert os.waitpid(pid, 0)[1] == 0

    assert in_fork(parent) == 0


def test_a_child_that_never_used_the_arena_takes_nothing_along(in_fork: InFork) -> None:
    with MinIOCache(1000, name="t-idle") as cache:
        assert in_fork(cache.close) == 0
        assert cache.admit((1, 1), b"x")
        assert cache.stats()["users"] == 1


def test_an_orderly_exit_without_close_leaves_nothing(in_process: InProcess, shm_dir: Path) -> None:
    done = in_process(
        "from coordl.fetch.cache import MinIOCache\n"
        "cache = MinIOCache(1000, name='t-exit')\n"
        "cache.admit((1, 1), b'x'); view = cache.get((1, 1))\n"
    )
    assert done.returncode == 0, done.stderr
    assert list(shm_dir.iterdir()) == []


def test_what_a_killed_last_user_left_is_reaped_by_the_next_open(
    in_fork: InFork, shm_dir: Path
) -> None:
    def killed() -> None:
        cache = MinIOCache(1000, name="t-killed")
        cache.admit((1, 1), b"x")
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(killed) == -signal.SIGKILL
    assert len(list(shm_dir.iterdir())) == 2
    with MinIOCache(1000, name="t-next"):
        assert {path.name.split(".")[2] for path in shm_dir.iterdir()} == {"t-next"}


def test_an_arena_with_a_live_user_is_not_reaped(in_fork: InFork) -> None:
    with MinIOCache(1000, name="t-live") as cache:
        cache.admit((1, 1), b"x")

        def other() -> None:
            assert _native.reap_arenas() == []
            with MinIOCache(1000, name="t-elsewhere"):
                pass

        assert in_fork(other) == 0
        assert _native.reap_arenas() == []
        assert cache.get((1, 1)) == b"x"


def test_looking_at_arenas_drops_no_lease_of_the_looking_process(in_process: InProcess) -> None:
    # POSIX locks drop when any descriptor of the file is closed: listing must not open a second.
    with MinIOCache(1000, name="t-look") as cache:
        assert [arena["users"] for arena in _native.list_arenas()] == [1]
        _native.reap_arenas()
        seen = in_process("from coordl import _native; print(_native.list_arenas()[0]['users'])")
        assert seen.stdout.strip() == "1", seen.stderr
        assert cache.stats()["users"] == 1


def test_a_stopped_process_keeps_its_lease(in_fork: InFork) -> None:
    with MinIOCache(1000, name="t-stopped") as cache:
        pid = os.fork()
        if pid == 0:
            cache.get((1, 1))
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        assert cache.stats()["users"] == 2
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert cache.stats()["users"] == 1


def test_a_cleared_arena_stays_readable_and_the_next_open_makes_a_new_one(
    in_fork: InFork,
) -> None:
    with MinIOCache(1000, name="t-cleared") as cache:
        cache.admit((1, 1), b"x")
        assert in_fork(lambda: _native.clear_arena("t-cleared", True)) == 0
        assert cache.get((1, 1)) == b"x"
        with MinIOCache(1000, name="t-cleared") as fresh:
            assert fresh.get((1, 1)) is None
            assert fresh.admit((2, 2), b"y")
        assert cache.get((2, 2)) is None


def test_a_kept_arena_is_full_for_the_next_job(in_process: InProcess, shm_dir: Path) -> None:
    source = (
        "from coordl.fetch.cache import MinIOCache\n"
        "with MinIOCache(1000, name='t-kept', persist={}) as cache:\n"
        "    assert cache.get((1, 1)) == {}\n"
        "    cache.admit((1, 1), b'x')\n"
    )
    for kept, found in ((True, None), (True, b"x"), (False, b"x")):
        done = in_process(source.format(kept, found))
        assert done.returncode == 0, done.stderr
        assert _native.reap_arenas() == []
        assert [arena["users"] for arena in _native.list_arenas()] == [0]
    _native.clear_arena("t-kept")


def test_who_asks_for_it_keeps_an_arena_in_use(shm_dir: Path, in_fork: InFork) -> None:
    with MinIOCache(1000, name="t-keep") as cache:
        cache.admit((1, 1), b"x")
        assert in_fork(lambda: MinIOCache(1000, name="t-keep", persist=True).close()) == 0
        assert cache.stats()["persist"] == 1
    assert len(list(shm_dir.iterdir())) == 2
    with MinIOCache(1000, name="t-keep") as again:
        assert again.get((1, 1)) == b"x"
    _native.clear_arena("t-keep")


def test_an_unlinked_lock_file_does_not_lose_a_kept_arena(shm_dir: Path) -> None:
    with MinIOCache(1000, name="t-lock", persist=True) as cache:
        cache.admit((1, 1), b"x")
    (shm_dir / f"coordl.{os.geteuid()}.t-lock.lock").unlink()
    assert [arena["name"] for arena in _native.list_arenas()] == ["t-lock"]
    with MinIOCache(1000, name="t-lock") as again:
        assert again.get((1, 1)) == b"x"
    _native.clear_arena("t-lock")
