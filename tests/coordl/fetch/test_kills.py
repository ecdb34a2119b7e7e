"""SIGKILL at each named step and at random moments: the arena stays sound and usable, no budget is
lost, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import kills
import pytest
from kills import ALONE, BUDGET, IN_USE, LARGE, RAISED, code_of, fork

from coordl import _native
from coordl.fetch.cache import MinIOCache

REPEATS = 20  # of each step, in the slow run


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*One arena has one budget")
        yield


def test_every_step_is_killed_somewhere() -> None:
    assert set(IN_USE) | set(ALONE) == set(_native._steps)


def kill_in_use(step: str) -> None:
    with MinIOCache(BUDGET, name="t-in-use") as cache:
        assert cache.admit((0, 0), LARGE)
        kills.die_in_use(step, cache)
        kills.check_survivors(cache)


def kill_alone(step: str, directory: Path) -> None:
    kills.die_alone(step, "t-alone")
    if step not in ("close:unlinked", "reap:unlinked"):
        assert os.listdir(directory) != []
    kills.check_nothing_left(directory)
    kills.die_alone(step, "t-alone")
    with MinIOCache(BUDGET, name="t-alone") as cache:  # the next to open it makes it anew
        assert cache.get((1, 1)) is None
        assert cache.admit((1, 1), LARGE) and cache.get((1, 1)) == LARGE
        assert cache.verify() == []
    assert os.listdir(directory) == []


@pytest.mark.parametrize("step", IN_USE)
def test_one_killed_at_any_step_costs_the_others_nothing(step: str) -> None:
    kill_in_use(step)


@pytest.mark.parametrize("step", ALONE)
def test_a_last_user_killed_at_any_step_leaves_what_the_next_process_removes(
    step: str, shm_dir: Path
) -> None:
    kill_alone(step, shm_dir)


def test_writers_killed_at_random_moments_cost_the_others_nothing(shm_dir: Path) -> None:
    assert sum(kills.kill_at_random(20, 1, shm_dir).values()) == 20


@pytest.mark.slow
def test_a_thousand_kills_at_random_moments(
    shm_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reached = kills.kill_at_random(1000, 2, shm_dir)
    report("killed at random, by the step reached last", reached, capsys)
    assert sum(reached.values()) == 1000


@pytest.mark.slow
def test_many_kills_at_each_step(shm_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = Counter[str]()
    for _ in range(REPEATS):
        for step in IN_USE:
            kill_in_use(step)
            killed[step] += 1
        for step in ALONE:
            kill_alone(step, shm_dir)
            killed[step] += 2
    report("killed at the step", killed, capsys)
    assert set(killed) == set(_native._steps)


def report(what: str, counts: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{what}: {sum(counts.values())}")
        for step in ["before the first step", *_native._steps]:
            if counts[step]:
                print(f"  {step:22} {counts[step]:5}")


def test_a_kept_arena_is_repaired_by_the_next_to_open_it() -> None:
    def work() -> None:
        cache = MinIOCache(BUDGET, name="t-kept", persist=True)
        cache.admit((0, 0), LARGE)
        _native._signal_at({"write:copied": signal.SIGKILL})
        cache.admit((1, 1), LARGE)

    assert code_of(fork(work)) == -signal.SIGKILL
    (before,) = _native.list_arenas()
    assert (before["users"], before["held_bytes"]) == (0, 2 * len(LARGE))
    with MinIOCache(BUDGET, name="t-kept") as cache:
        stats = cache.stats()
        assert stats["held_bytes"] == stats["used_bytes"] == len(LARGE)
        assert cache.get((0, 0)) == LARGE and cache.verify() == []
    _native.clear_arena("t-kept")


def test_many_killed_writers_cost_no_memory_beyond_the_budget() -> None:
    with MinIOCache(4 * len(LARGE), name="t-many") as cache:
        for i in range(20):
            kills.die_at("write:copied", lambda i=i: cache.admit((i, 9), LARGE))
        # The last dead one's share is still held; a joining process gives it back.
        assert code_of(fork(lambda: cache.admit((100, 0), LARGE))) == 0
        assert cache.admit((101, 0), LARGE) and cache.admit((102, 0), LARGE)
        assert cache.admit((103, 0), LARGE)
        assert cache.stats()["used_bytes"] == 4 * len(LARGE)
        assert cache.verify() == []


WRITING = [step for step in IN_USE if step.startswith(("reserve:", "write:", "publish:", "count:"))]


@pytest.mark.parametrize("step", WRITING)
def test_killed_writers_leave_counters_by_form_that_are_exact(
    step: str, photos: list[Path]
) -> None:
    jpeg = photos[0].read_bytes()
    items = {form: _native.recode(jpeg, form) for form in ("indexed", "packed")} | {
        "original": jpeg
    }
    with MinIOCache("20MiB", name="t-kinds") as cache:
        for number, item in enumerate(items.values()):
            assert cache.admit((number, 0), item)
            kills.die_at(step, lambda key=(number, 1), item=item: cache.admit(key, item))
        assert code_of(fork(lambda: cache.admit((9, 9), LARGE))) == 0  # joins, and repairs
        keys = [(number, again) for number in range(3) for again in range(2)] + [(9, 9)]
        held = [bytes(item) for key in keys if (item := cache.get(key)) is not None]
        stats = cache.stats()
        assert stats["items"] == len(held) >= 4
        assert stats["held_bytes"] == stats["used_bytes"] == sum(map(len, held))
        for form in items:
            of_form = [len(item) for item in held if _native.form(item) == form]
            assert stats[f"{form}_items"] == len(of_form)
            assert stats[f"{form}_bytes"] == sum(of_form)


def test_a_writer_stopped_in_the_middle_blocks_nobody() -> None:
    with MinIOCache(4 * len(LARGE), name="t-stopped") as cache:

        def stopping() -> None:
            _native._signal_at({"write:copied": signal.SIGSTOP})
            cache.admit((1, 1), LARGE)

        pid = fork(stopping)
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        assert cache.get((1, 1)) is None
        assert cache.admit((1, 1), LARGE)
        os.kill(pid, signal.SIGCONT)
        assert code_of(pid) == 0
        assert cache.stats()["items"] == 1
        assert cache.stats()["held_bytes"] == cache.stats()["used_bytes"] == len(LARGE)
        assert cache.verify() == []


@pytest.mark.parametrize("step", ["raise:asked", "raise:budget"])
def test_a_raise_cut_short_is_made_good_by_the_next_who_asks(step: str) -> None:
    with MinIOCache(BUDGET, name="t-raise") as cache:
        kills.die_at(step, lambda: MinIOCache(RAISED, name="t-raise"))
        with MinIOCache(RAISED, name="t-raise"):
            assert cache.budget_bytes == RAISED
