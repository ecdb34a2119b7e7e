"""SIGKILL and SIGSTOP of a member at each named step: the others finish, with the right samples,
without waiting longer than they say, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from group_jobs import PICTURES, Job, alone, batches_of, loader, prepared

import coordl
from coordl import _native
from coordl.staging import group as groups

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

# In a pass over the data; the others are of opening a ring and of taking over.
IN_PASS = [
    step
    for step in _native._staging_steps
    if step.startswith(("claim:claimed", "fill:", "publish:", "read:"))
]
QUICK = ("fill:begun", "publish:noted", "read:entered")
BATCHES = 3, 4


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(groups, "PATIENCE_S", 0.3)
    yield


def signalled(folder: Path, step: str, number: int) -> Job:
    """A job that gets the signal when it is at that step."""

    def work() -> Any:
        _native._signal_at({step: number})
        return batches_of(loader(folder, 5))

    return Job(work)


def check_others(folder: Path) -> list[coordl.DataLoader]:
    """Two jobs in this process get all of two epochs right."""
    others = [loader(folder, batch) for batch in BATCHES]
    for epoch in range(2):
        for batch, other in zip(BATCHES, others, strict=True):
            assert batches_of(other) == alone(folder, batch, epoch)
    return others


def kill_at(folder: Path, step: str, shm_dir: Path) -> None:
    keep = loader(folder, 2)
    next(iter(keep))  # a member beside the one that dies, so that the ring lives on
    dying = signalled(folder, step, signal.SIGKILL)
    assert dying.end() == -signal.SIGKILL, f"{step} was not reached"
    others = check_others(folder)
    # What the dead one had done, nobody did again, but for what it had in hand.
    total = sum(prepared(one.stats()) for one in [keep, *others])
    assert PICTURES <= total <= 2 * PICTURES
    assert all(one.stats()["epochs"][-1]["shared"]["alone"] == 0 for one in others)


def stop_at(folder: Path, step: str) -> None:
    keep = loader(folder, 2)
    next(iter(keep))
    stopped = signalled(folder, step, signal.SIGSTOP)
    stopped.wait_stopped()
    others = check_others(folder)
    os.kill(stopped.pid, signal.SIGCONT)
    # It may stop again at the same step: it is let run.
    deadline = time.monotonic() + 60
    while not stopped.has_result():
        assert time.monotonic() < deadline
        os.kill(stopped.pid, signal.SIGCONT)
        time.sleep(0.002)
    assert stopped.result() == alone(folder, 5, 0)
    assert stopped.end() == 0
    assert batches_of(others[0]) == alone(folder, BATCHES[0], 2)


def test_every_step_of_a_pass_is_known() -> None:
    assert set(QUICK) <= set(IN_PASS) and len(IN_PASS) == 9


@pytest.mark.parametrize("step", QUICK)
def test_a_member_killed_costs_the_others_nothing(folder: Path, shm_dir: Path, step: str) -> None:
    kill_at(folder, step, shm_dir)


@pytest.mark.slow
@pytest.mark.parametrize("step", sorted(set(IN_PASS) - set(QUICK)))
def test_a_member_killed_at_any_step_costs_the_others_nothing(
    folder: Path, shm_dir: Path, step: str
) -> None:
    kill_at(folder, step, shm_dir)


def test_a_stopped_holder_is_not_waited_for_and_its_going_on_harms_nobody(folder: Path) -> None:
    stop_at(folder, "fill:begun")


@pytest.mark.slow
@pytest.mark.parametrize("step", IN_PASS)
def test_a_member_stopped_at_any_step_harms_nobody(folder: Path, step: str) -> None:
    stop_at(folder, step)


def test_what_a_killed_last_member_leaves_the_next_to_come_removes(
    folder: Path, shm_dir: Path
) -> None:
    for reap in (_native.reap_rings, lambda: batches_of(loader(folder, 4, group="other"))):
        dying = signalled(folder, "fill:sample", signal.SIGKILL)
        assert dying.end() == -signal.SIGKILL
        assert len(os.listdir(shm_dir)) == 2
        reap()
        assert os.listdir(shm_dir) == []
    assert signalled(folder, "fill:sample", signal.SIGKILL).end() == -signal.SIGKILL
    assert batches_of(loader(folder, 4)) == alone(folder, 4, 0)  # made anew
