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
