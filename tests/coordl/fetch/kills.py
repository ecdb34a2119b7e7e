"""Processes that kill themselves at a named step, or are killed at a random moment, and what must
hold of the arena they leave."""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from coordl import _native
from coordl.fetch.cache import MinIOCache

LARGE = bytes(range(256)) * 64  # 16 KiB: whole pages to give back
GROWS = bytes(range(256)) * 2048  # 512 KiB: more than an arena has at first

Work = Callable[[], object]


def fork(work: Work) -> int:
    """The process that runs `work`: it exits with 0, or 1 when that raised."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def code_of(pid: int) -> int:
    """Its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(step: str, work: Work) -> None:
    """Runs `work` in a process that must be killed at that step."""

    def dying() -> None:
        _native._signal_at({step: signal.SIGKILL})
        work()

    assert code_of(fork(dying)) == -signal.SIGKILL, f"{step} was not reached"


def lose_race_and_die(step: str, cache: MinIOCache) -> None:
    """A process admits what this one admits while that one is stopped, and dies at that step."""

    def dying() -> None:
        _native._signal_at({"reserve:begun": signal.SIGSTOP, step: signal.SIGKILL})
        cache.admit((1, 1), LARGE)

    pid = fork(dying)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    assert cache.admit((1, 1), LARGE)
    os.kill(pid, signal.SIGCONT)
    assert code_of(pid) == -signal.SIGKILL, f"{step} was not reached"


def join_and_die(step: str, cache: MinIOCache) -> None:
    """A writer dies, and so does who repairs what it left."""
    die_at("write:copied", lambda: cache.admit((1, 1), LARGE))
    die_at(step, lambda: cache.get((9, 9)))


BUDGET = 60 * len(LARGE)
RAISED = BUDGET + 4 * len(LARGE)


def die_in_use(step: str, cache: MinIOCache) -> None:
    """A process dies at that step while `cache`, of BUDGET, is in use here."""
    name = cache.name
    operation = step.partition(":")[0]
    if operation == "abandon":
        lose_race_and_die(step, cache)
    elif operation == "repair":
        join_and_die(step, cache)
    elif operation == "grow":
        die_at(step, lambda: cache.admit((1, 1), GROWS))
    elif operation == "raise":
        die_at(step, lambda: MinIOCache(RAISED, name=name))
    elif operation == "open":
        die_at(step, lambda: MinIOCache(BUDGET, name=name))
    elif operation == "close":
        die_at(step, lambda: (cache.get((0, 0)), cache.close()))
    else:
        die_at(step, lambda: cache.admit((1, 1), LARGE))


IN_USE = [
    step
    for step in _native._steps
    if not step.startswith("reap:")
    and step not in ("close:unlinked", "open:created", "open:sized", "open:set_aside")
    and step not in ("open:described", "open:magic")
]


def die_alone(step: str, name: str) -> None:
    """The only user of an arena of that name dies at that step."""

    def work() -> None:
        cache = MinIOCache(BUDGET, name=name)
        operation = step.partition(":")[0]
        if operation == "raise":
            MinIOCache(RAISED, name=name)
        cache.admit((1, 1), GROWS if operation == "grow" else LARGE)
        cache.close()

    if step.startswith("reap:"):
        die_at("count:ended", work)
        die_at(step, _native.reap_arenas)
    else:
        die_at(step, work)


ALONE = [step for step in _native._steps if not step.startswith(("abandon:", "repair:"))]


def check_survivors(cache: MinIOCache) -> None:
    """The arena is sound, others go on, and the next to join finds no budget lost."""
    assert cache.verify() == []
    assert cache.get((0, 0)) == LARGE
    assert cache.get((1, 1)) in (None, LARGE, GROWS)
    assert cache.admit((2, 2), LARGE) and cache.get((2, 2)) == LARGE

    def join() -> None:
        with MinIOCache(RAISED, name=cache.name) as joined:
            stats = joined.stats()
            assert stats["held_bytes"] == stats["used_bytes"], stats
            kept = sum(len(joined.get((i, i)) or b"") for i in range(3))
            assert (stats["items"], stats["used_bytes"]) == (2 + (kept > 2 * len(LARGE)), kept)
            room = (RAISED - kept) // len(LARGE)
            admitted = [joined.admit((100 + i, 0), LARGE) for i in range(room + 1)]
            assert admitted == [True] * room + [False]

    assert code_of(fork(join)) == 0
    assert cache.verify() == []
    assert cache.stats()["users"] == 1


def check_nothing_left(directory: Path) -> None:
    """One coordl process has looked: whatever was there is gone."""
    _native.reap_arenas()
    assert sorted(os.listdir(directory)) == []


class Steps:
    """Where a killed process was: the step it reached last."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._number = np.frombuffer(self._shared, np.uint8, 1)

    def record(self) -> None:
        """In the process to be watched."""
        _native._record_steps(self._number)

    def take(self) -> str:
        number = int(self._number[0])
        self._number[0] = 0
        return _native._steps[number - 1] if number else "before the first step"


ITEMS = 80
BATCHES_BYTES = 64 * 2**20


@functools.cache
def item(i: int) -> bytes:
    """Item `i`'s bytes; a few make the arena grow."""
    size = 300_000 if i % 40 == 39 else i * 997 % 8_000
    return random.Random(i).randbytes(64) * (size // 64)


def admit_batches(name: str, first: int, count: int | None, seed: int) -> None:
    """Opens, raises, admits a batch of new items in random order, closes: `count` times, or until
    killed. Whoever begins with the same batch admits the same items."""
    rng = random.Random(seed)
    for batch in itertools.count(first) if count is None else range(first, first + count):
        size = BATCHES_BYTES - rng.randrange(1000)
        with MinIOCache(size, name=name, expected_items=10_000) as cache:
            for i in rng.sample(range(ITEMS), ITEMS):
                if cache.admit((i, batch), item(i)):
                    assert cache.get((i, batch)) == item(i)


def kill_at_random(count: int, seed: int, directory: Path) -> Counter[str]:
    """Kills `count` processes that admit beside another one: which step each had reached.

    After each: every record verifies, the other went on, and who joins finds no budget lost. Each
    fifth time the arena is made anew; each other of these the last user is killed as well.
    """
    rng = random.Random(seed)
    steps, reached = Steps(), Counter[str]()
    name = "t-random"
    cache: MinIOCache | None = None
    for i in range(ITEMS):
        item(i)  # made once, not in every child
    for number in range(count):
        if cache is None:
            cache = MinIOCache(2**20, name=name, expected_items=10_000)
        batch = 1000 * number

        def watched(batch: int = batch) -> None:
            steps.record()
            admit_batches(name, batch, None, batch)

        dying = fork(watched)
        other = fork(lambda batch=batch: admit_batches(name, batch, 3, batch + 1))
        time.sleep(rng.random() * 0.02)
        os.kill(dying, signal.SIGKILL)
        assert code_of(dying) == -signal.SIGKILL
        assert code_of(other) == 0
        reached[steps.take()] += 1
        assert cache.verify() == []

        def join() -> None:
            with MinIOCache(BATCHES_BYTES, name=name) as joined:
                stats = joined.stats()
                assert stats["held_bytes"] == stats["used_bytes"], stats
                assert stats["users"] == 2

        assert code_of(fork(join)) == 0
        assert cache.stats()["users"] == 1
        if number % 10 == 9:
            cache.close()
            assert sorted(os.listdir(directory)) == []
            cache = None
        elif number % 10 == 4:
            cache.close()
            cache = None
            alone = fork(lambda batch=batch: admit_batches(name, batch, None, batch))
            time.sleep(rng.random() * 0.02)
            os.kill(alone, signal.SIGKILL)
            assert code_of(alone) == -signal.SIGKILL
            check_nothing_left(directory)
    if cache is not None:
        cache.close()
    return reached
