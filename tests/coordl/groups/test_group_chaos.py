"""Six jobs of a group that are killed, stopped and replaced at random, for as long as one likes.

COORDL_CHAOS_S=600 python -m pytest -s -m slow tests/coordl/groups/test_group_chaos.py
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from group_jobs import PICTURES, Job, alone, loader, transform

from coordl import _native
from coordl.staging import group as groups

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]

SECONDS = float(os.environ.get("COORDL_CHAOS_S", "60"))
SEED = int(os.environ.get("COORDL_CHAOS_SEED", "1"))
# A group lasts for so many epochs, and some more for who comes then: what is prepared beforehand to
# compare with is bounded.
JOBS, EPOCHS, MORE, BATCHES = 6, 40, 40, (2, 3, 5)
SLOTS = 16  # each of one picture: who comes in mid-epoch finds the first ones gone
PATIENCE_S = 0.8
# What a minibatch takes alone when six jobs, and whatever else the machine does, share its cores.
ALONE_S = 0.7
HANGS_S = 120.0  # who takes so long waits for what will not come
EDGE = 32  # a picture is three pages: minibatches are yielded where they are staged
KEPT = 4  # minibatches that a job keeps, and looks at again
STAGING = SLOTS * (3 * EDGE * EDGE * 4 + 128)
_WHAT = {signal.SIGKILL: "kills at ", signal.SIGSTOP: "stops at "}
STEPS = [
    step
    for step in _native._staging_steps
    if step.startswith(("claim:", "fill:", "publish:", "read:", "release:"))
]
Samples = list[tuple[bytes, int]]  # of each: a digest of its picture, its label


def samples_of(images: Any, labels: Any) -> Samples:
    return [
        (hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest(), label)
        for image, label in zip(images, labels.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class Task:
    """What one job does.

    Attributes:
        saved: where it keeps how far it is, for who goes on after its death, or beside it.
        epochs: how many it runs, at most.
        pace_s: what it takes over each sample.
        struck: a step at which it is killed or stops, with which signal, and after how many
            minibatches at the earliest.
    """

    folder: Path
    expected: list[Samples]
    saved: Path
    group: str
    batch: int
    workers: int
    epochs: int
    pace_s: float
    struck: tuple[str, int, int] | None

    def __call__(self) -> tuple[Counter, list[tuple[float, float]]]:
        """Returns what it did, and when it waited for long."""
        did: Counter = Counter()
        waits = []
        options: dict[str, Any] = {"num_workers": self.workers, "group": self.group}
        options |= {"staging": STAGING, "transform": transform(EDGE)}
        one = loader(self.folder, self.batch, **options)
        kept: deque[Any] = deque(maxlen=KEPT)
        got: Samples = []
        if self.saved.exists():
            _, got, state = pickle.loads(self.saved.read_bytes())
            one.load_state_dict(state)
        seen = epoch = 0
        for _ in range(self.epochs):
            began = time.monotonic()
            for images, labels in one:
                if time.monotonic() - began > PATIENCE_S / 4:
                    waits.append((began, time.monotonic()))
                got += samples_of(images, labels)
                kept.append((images, labels, got[-len(labels) :]))
                assert all(samples_of(*data) == seen_then for *data, seen_then in kept)
                seen += 1
                if self.struck and seen == self.struck[2]:
                    _native._signal_at({self.struck[0]: self.struck[1]})
                if len(got) < PICTURES:
                    self._save(got, one)
                time.sleep(self.pace_s * len(labels))
                began = time.monotonic()
            proof = one.verify_epoch()
            epoch, first = proof["epoch"], proof["began_at"]
            expected = self.expected[epoch][first:] + self.expected[epoch][:first]
            assert got == expected, f"epoch {epoch} from {first} on is not that of a lone run"
            assert proof["distinct"] == PICTURES
            did["epochs verified"] += 1
            did["of them from their middle on"] += first > 0
            got = []
            self._save(got, one)
            if epoch % 2:  # a pass that is left early gives up what it had claimed
                left = loader(self.folder, self.batch, **{**options, "num_workers": 2})
                left.load_state_dict(one.state_dict())
                next(iter(left))
            if epoch + 1 >= EPOCHS:
                break
        shared = [each["shared"] for each in one.stats()["epochs"]]
        for name in ("prepared", "alone", "staged", "viewed", "given_up", "taken_over"):
            did[name.replace("_", " ")] += sum(each[name] for each in shared)
        self.saved.unlink()
        return did, waits

    def _save(self, got: Samples, one: Any) -> None:
        new, state = self.saved.with_suffix(".new"), one.state_dict()
        new.write_bytes(pickle.dumps((state["epoch"] + state["finished"], got, state)))
        new.replace(self.saved)


@dataclass
class Watched:
    """A job, and what was done to it.

    Attributes:
        killed: at random, not at a step.
        until: when it goes on, while it is stopped.
        stops: when it was.
    """

    job: Job
    task: Task
    began: float = field(default_factory=time.monotonic)
    killed: bool = False
    until: float | None = None
    stops: list[list[float]] = field(default_factory=list)

    def stop(self, seconds: float) -> None:
        os.kill(self.job.pid, signal.SIGSTOP)
        self.stays(seconds)

    def stays(self, seconds: float) -> None:
        """It is stopped: for so long."""
        now = time.monotonic()
        self.stops.append([now, now])
        self.until = now + seconds

    def stopped_itself(self) -> bool:
        stat = Path(f"/proc/{self.job.pid}/stat").read_text()
        return self.until is None and stat.rpartition(")")[2].split()[0] == "T"

    def go_on(self) -> None:
        os.kill(self.job.pid, signal.SIGCONT)
        self.stops[-1][1] = time.monotonic()
        self.until = None

    def waited(self, begin: float, end: float) -> float:
        """Of that time, what it was not itself stopped."""
        stopped = (min(end, b) - max(begin, a) for a, b in self.stops)
        return end - begin - sum(max(0.0, each) for each in stopped)


class Chaos:
    """Starts, stops and kills jobs; `happened` counts."""

    def __init__(self, folder: Path, home: Path, seed: int) -> None:
        self.folder, self.home = folder, home
        self.rng = random.Random(seed)
        self.expected = [
            [
                (hashlib.blake2b(pictures, digest_size=8).digest(), labels[0])
                for pictures, labels in alone(folder, 1, epoch, transform=transform(EDGE))
            ]
            for epoch in range(EPOCHS + MORE)
        ]
        assert all(len({digest for digest, _ in one}) == PICTURES for one in self.expected)
        self.happened: Counter = Counter()
        self.longest_s = 0.0
        self.started = self.groups = 0
        self.jobs: list[Watched] = []
        self.orphans: list[Task] = []  # of jobs that were killed

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        try:
            while (running := time.monotonic() < end) or self.jobs:
                if running:
                    self._one_more_thing()
                time.sleep(self.rng.random() * 0.05)
                self._look_after()
        finally:
            for watched in self.jobs:
                watched.job.kill()
                watched.job.end()

    def _one_more_thing(self) -> None:
        if len(self.jobs) < JOBS:
            self._start()
        watched, chance = self.rng.choice(self.jobs), self.rng.random()
        if chance < 0.02:
            watched.killed = True
            watched.job.kill()
        elif chance < 0.08 and watched.until is None:
            self.happened["stops at random"] += 1
            watched.stop(self._pause_s())

    def _pause_s(self) -> float:
        return self.rng.random() * 4 * PATIENCE_S

    def _start(self) -> None:
        rng = self.rng
        self.started += 1
        saved = self.home / f"saved-{self.started}"
        if self.orphans and rng.random() < 0.7:
            orphan = self.orphans.pop(rng.randrange(len(self.orphans)))
            orphan.saved.rename(saved)
            group = orphan.group
            self.happened["resumes"] += 1
        else:
            group = self._join(saved)
        # Rare steps are tried as often as it takes.
        number = rng.choice((signal.SIGKILL, signal.SIGSTOP))
        step = min(rng.sample(STEPS, 6), key=lambda step: self.happened[_WHAT[number] + step])
        struck = (step, number, rng.randrange(1, 40)) if rng.random() < 0.7 else None
        choices = (rng.choice(BATCHES), rng.randrange(3), rng.randint(1, 12), rng.random() * 0.005)
        task = Task(self.folder, self.expected, saved, group, *choices, struck)
        self.jobs.append(Watched(Job(task), task))

    def _join(self, saved: Path) -> str:
        """A newcomer finds its place itself, or by a copy of what the first of the group saved."""
        group, first = f"sweep-{self.groups}", (-1, b"")
        for watched in self.jobs:
            with contextlib.suppress(FileNotFoundError):
                if watched.task.group == group:
                    state = watched.task.saved.read_bytes()
                    first = max(first, (pickle.loads(state)[0], state))
        if first[0] >= EPOCHS - 2:
            self.groups += 1
            group = f"sweep-{self.groups}"
        elif first[0] >= 0:
            self.happened["late joins"] += 1
            if self.rng.random() < 0.5:
                saved.write_bytes(first[1])
                self.happened["of them by a copy"] += 1
            return group
        self.happened["joins at the begin"] += 1
        return group

    def _look_after(self) -> None:
        now = time.monotonic()
        for watched in list(self.jobs):
            if watched.until is not None and watched.until < now:
                watched.go_on()
            if watched.job.has_result():
                self.jobs.remove(watched)
                self._ended(watched)
                continue
            if watched.stopped_itself() and watched.task.struck:
                self.happened[_WHAT[signal.SIGSTOP] + watched.task.struck[0]] += 1
                watched.stays(self._pause_s())
            assert now - watched.began < HANGS_S, f"a job hangs: {watched.task}"

    def _ended(self, watched: Watched) -> None:
        if watched.until is not None:
            watched.go_on()
        result, task = None, watched.task
        with contextlib.suppress(EOFError, pickle.UnpicklingError):  # killed before, or meanwhile
            result = watched.job.result()
        code = watched.job.end()
        assert code in (0, -signal.SIGKILL), "its error is above"
        if code != 0:
            assert watched.killed or task.struck
            where = "random" if watched.killed or not task.struck else task.struck[0]
            self.happened[_WHAT[signal.SIGKILL] + where] += 1
        if task.saved.exists():
            self.orphans.append(task)
        if result is not None:
            did, waits = result
            self.happened.update(did)
            self.happened["survivors"] += 1
            waited = max((watched.waited(*each) for each in waits), default=0.0)
            self.longest_s = max(self.longest_s, waited)
            assert waited < PATIENCE_S + ALONE_S, f"a survivor waited {waited:.2f} s"


def test_whatever_happens_each_survivor_gets_what_a_lone_run_does(
    folder: Path,
    shm_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "PATIENCE_S", PATIENCE_S)
    chaos = Chaos(folder, tmp_path, SEED)
    chaos.run(SECONDS)
    happened = chaos.happened
    print(f"\n{SECONDS:.0f} s, seed {SEED}; longest wait {chaos.longest_s:.2f} s")
    print("\n".join(f"{count:8,} {what}" for what, count in sorted(happened.items())))
    usual = {"late joins", "resumes", "survivors", "given up", "taken over"}
    usual |= {"viewed", "epochs verified", "of them from their middle on"}
    where = ["random", *STEPS] if SECONDS >= 300 else ["random"]  # some are rare
    usual |= {what + each for what in _WHAT.values() for each in where}
    assert usual <= set(happened)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    look = [sys.executable, "-m", "coordl.cli", "status"]
    subprocess.run(look, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert os.listdir(shm_dir) == []
