"""SIGKILL at each named step: the arena stays sound and usable, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from coordl import _native
from coordl.fetch.cache import MinIOCache

InFork = Callable[[Callable[[], object]], int]

LARGE = bytes(range(256)) * 64  # 16 KiB: whole pages to give back


def killed_at(step: str, work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        _native._signal_at(step, signal.SIGKILL)
        work()

    return run


@pytest.mark.parametrize("step", _native._admit_steps)
def test_a_writer_killed_at_any_step_of_admit_leaves_a_usable_arena(
    step: str, in_fork: InFork
) -> None:
    budget = 8 * len(LARGE)
    with MinIOCache(budget, name="t-admit") as cache:
        assert cache.admit((0, 0), LARGE)
        dying = killed_at(step, lambda: cache.admit((1, 1), LARGE))
        assert in_fork(dying) == -signal.SIGKILL
        assert cache.verify() == []
        assert cache.get((1, 1)) in (None, LARGE)
        assert cache.get((0, 0)) == LARGE

        # Who joins next gives back what the dead writer held. Killed between taking budget and
        # claiming a record, nothing says whose the budget was: one item less until the last user
        # leaves.
        def fill() -> None:
            for i in range(1, 8):
                cache.admit((i, i), LARGE)

        assert in_fork(fill) == 0
        lost = 1 if step == "admit:held" else 0
        assert sum(cache.get((i, i)) == LARGE for i in range(8)) == 8 - lost
        assert cache.stats()["used_bytes"] <= budget
        assert cache.verify() == []


@pytest.mark.parametrize("step", _native._open_steps)
def test_a_creator_killed_at_any_step_of_open_does_not_bar_the_next(
    step: str, in_fork: InFork, shm_dir: Path
) -> None:
    dying = killed_at(step, lambda: MinIOCache(100_000, name="t-open"))
    assert in_fork(dying) == -signal.SIGKILL
    assert list(shm_dir.iterdir()) != []
    with MinIOCache(100_000, name="t-open") as cache:
        assert cache.admit((1, 1), LARGE)
        assert cache.get((1, 1)) == LARGE
        assert cache.verify() == []


@pytest.mark.parametrize("step", ["open:gate", "open:leased"])
def test_one_killed_while_joining_a_live_arena_does_not_disturb_it(
    step: str, in_fork: InFork
) -> None:
    with MinIOCache(100_000, name="t-join") as cache:
        cache.admit((1, 1), LARGE)
        dying = killed_at(step, lambda: MinIOCache(100_000, name="t-join"))
        assert in_fork(dying) == -signal.SIGKILL
        assert cache.get((1, 1)) == LARGE
        assert cache.stats()["users"] == 1


@pytest.mark.parametrize("step", _native._close_steps)
def test_one_killed_at_any_step_of_close_leaves_what_the_next_open_reaps(
    step: str, in_fork: InFork, shm_dir: Path
) -> None:
    def dying() -> None:
        cache = MinIOCache(100_000, name="t-close")
        _native._signal_at(step, signal.SIGKILL)
        cache.close()

    assert in_fork(dying) == -signal.SIGKILL
    assert list(shm_dir.iterdir()) != []
    with MinIOCache(100_000, name="t-other"):
        assert {path.name.split(".")[2] for path in shm_dir.iterdir()} == {"t-other"}


def test_many_killed_writers_cost_no_memory_beyond_the_budget(in_fork: InFork) -> None:
    with MinIOCache(4 * len(LARGE), name="t-many") as cache:
        for i in range(20):
            assert (
                in_fork(killed_at("admit:copied", lambda i=i: cache.admit((i, 9), LARGE)))
                == -signal.SIGKILL
            )
        # The last dead one's share is still held; a joining process gives it back.
        assert in_fork(lambda: cache.admit((100, 0), LARGE)) == 0
        assert cache.admit((101, 0), LARGE) and cache.admit((102, 0), LARGE)
        assert cache.admit((103, 0), LARGE)
        assert cache.stats()["used_bytes"] == 4 * len(LARGE)
        assert cache.verify() == []


@pytest.mark.parametrize("step", _native._admit_steps)
def test_killed_writers_leave_counters_by_form_that_lag_by_theirs_at_most(
    step: str, in_fork: InFork, photos: list[Path]
) -> None:
    """Of each writer that died at one step, at most its one item is uncounted."""
    jpeg = photos[0].read_bytes()
    items = {form: _native.recode(jpeg, form) for form in ("indexed", "packed")} | {
        "original": jpeg
    }
    killed = 0
    with MinIOCache("20MiB", name="t-kinds") as cache:
        for number, item in enumerate(items.values()):
            for again in range(3):
                assert cache.admit((number, 2 * again), item)
                key = number, 2 * again + 1
                dying = killed_at(step, lambda key=key, item=item: cache.admit(key, item))
                assert in_fork(dying) == -signal.SIGKILL
                killed += 1
        assert in_fork(lambda: cache.admit((9, 9), LARGE)) == 0  # joins, and repairs
        held = {form: 0 for form in items}
        sizes = dict(held)
        for high, low in [(n, i) for n in range(3) for i in range(6)] + [(9, 9)]:
            if (item := cache.get((high, low))) is not None:
                held[_native.form(item)] += 1
                sizes[_native.form(item)] += len(item)
        stats = cache.stats()
        assert cache.verify() == []
        for form, item in items.items():
            lag = held[form] - stats[f"{form}_items"]
            assert 0 <= lag <= 3, (form, held, stats)
            assert 0 <= sizes[form] - stats[f"{form}_bytes"] <= 3 * len(item)
        assert 0 <= sum(held.values()) - stats["items"] <= killed
        counted = sum(stats[f"{form}_items"] for form in items)
        assert abs(counted - stats["items"]) <= killed
        assert min(held.values()) >= 3


def test_a_writer_stopped_in_the_middle_blocks_nobody() -> None:
    with MinIOCache(4 * len(LARGE), name="t-stopped") as cache:
        pid = os.fork()
        if pid == 0:
            _native._signal_at("admit:copied", signal.SIGSTOP)
            cache.admit((1, 1), LARGE)
            os._exit(0)
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        assert cache.get((1, 1)) is None
        assert cache.admit((1, 1), LARGE)
        os.kill(pid, signal.SIGCONT)
        assert os.waitpid(pid, 0)[1] == 0
        assert cache.stats()["items"] == 1
        assert cache.stats()["used_bytes"] == len(LARGE)
        assert cache.verify() == []
