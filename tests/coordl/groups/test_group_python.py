"""Groups of data sets that Python makes: worker processes of several jobs make each sample once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from group_jobs import PICTURES, SEED, ByKey, Job, hold

import coordl
from coordl import _native
from coordl.staging import group as groups
from coordl.staging import shared_samples
from coordl.staging.record import from_record, to_record

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class Drawn(torch.utils.data.Dataset):
    """Samples of tensors, arrays and words in a dict; drawn from all three global generators."""

    def __init__(self, folder: Path, varying: bool = False, bad: int = -1) -> None:
        self.folder, self.varying, self.bad = folder, varying, bad

    def __len__(self) -> int:
        return PICTURES

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.bad:
            raise ValueError("no such picture")
        with open(self.folder / "made", "a") as log:  # one write: whole lines
            log.write(f"{index}\n")
        size = 40 + 200 * (index % 5) if self.varying else 64
        return {
            "noise": torch.rand(3, size) + random.random(),
            "level": np.random.normal(size=4).astype(np.float32),
            "name": f"picture {index}",
            "pair": (index, float(index)),
        }


def by_name(samples: list[Any]) -> Any:
    return [(one["name"], one["noise"], one["level"], one["pair"]) for one in samples]


def rows(batch: Any) -> list[Any]:
    """Comparable, sample by sample, however they were collated."""
    if isinstance(batch, dict):
        columns = zip(batch["name"], batch["noise"], batch["level"], *batch["pair"], strict=True)
        return [(n, a.tolist(), b.tolist(), int(i), float(f)) for n, a, b, i, f in columns]
    return [(n, a.tolist(), b.tolist(), i, f) for n, a, b, (i, f) in batch]


def loader(folder: Path, batch: int, **more: Any) -> coordl.DataLoader:
    chosen: dict[str, Any] = {"group": "python", "seed": SEED, "shuffle": True, "num_workers": 2}
    chosen.update(more)
    data = Drawn(folder, chosen.pop("varying", False), chosen.pop("bad", -1))
    if data.varying:
        chosen["collate_fn"] = by_name
    return coordl.DataLoader(data, batch, **chosen)


def samples_of(one: Any) -> list[Any]:
    return [row for batch in one for row in rows(batch)]


def alone(folder: Path, epoch: int, **more: Any) -> list[Any]:
    sampler = ByKey(PICTURES, SEED)
    sampler.set_epoch(epoch)
    options = {"group": None, "shuffle": None, "sampler": sampler, "num_workers": 0}
    got = samples_of(loader(folder, 4, **options, **more))
    (folder / "made").unlink()
    return got


def made(folder: Path) -> int:
    """Samples made since the last look, by any process."""
    log = folder / "made"
    count = len(log.read_text().split()) if log.exists() else 0
    log.unlink(missing_ok=True)
    return count


PROBED = 5  # samples a loader makes when it joins


@pytest.mark.parametrize("varying", [False, True])
def test_jobs_get_what_each_would_alone_and_make_each_sample_once(
    tmp_path: Path, varying: bool
) -> None:
    expected = [alone(tmp_path, epoch, varying=varying) for epoch in range(2)]

    def work(batch: int, workers: int) -> Any:
        one = hold(loader(tmp_path, batch, num_workers=workers, varying=varying))
        got = [samples_of(one) for _ in range(2)]
        return got, [epoch["shared"] for epoch in one.stats()["epochs"]]

    jobs = [Job(lambda args=args: work(*args)) for args in ((4, 2), (3, 0), (5, 1))]
    results = [job.result() for job in jobs]
    assert [job.end() for job in jobs] == [0, 0, 0]
    for got, shared in results:
        assert got == expected
        assert all(sum(epoch[name] for name in ("prepared", "alone", "staged")) == PICTURES
                   for epoch in shared)  # fmt: skip
    count = made(tmp_path) - len(jobs) * PROBED
    alone_made = sum(epoch["alone"] for _, shared in results for epoch in shared)
    assert count == 2 * PICTURES and alone_made == 0


def test_workers_of_one_loader_share_with_those_of_another_in_mid_epoch(tmp_path: Path) -> None:
    first = loader(tmp_path, 2, num_workers=1)
    running = iter(first)
    head = [next(running) for _ in range(3)]
    second = loader(tmp_path, 4, num_workers=1)
    expected = samples_of(second)
    assert [row for batch in [*head, *running] for row in rows(batch)] == expected
    assert made(tmp_path) == PICTURES + 2 * PROBED
    assert expected == alone(tmp_path, 0)


def test_a_sample_too_large_for_a_slot_each_job_makes_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coordl.staging import probe

    monkeypatch.setattr(probe, "_VARYING", 0.5)
    expected = alone(tmp_path, 0, varying=True)
    jobs = [loader(tmp_path, 4, varying=True) for _ in range(2)]
    assert [samples_of(one) for one in jobs] == [expected, expected]
    shared = [one.stats()["epochs"][0]["shared"] for one in jobs]
    assert shared[0]["alone"] == shared[1]["alone"] > 0
    assert shared[1]["staged"] == shared[0]["prepared"] > 0


def test_bad_samples_are_each_jobs_own(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="no such picture"):
            samples_of(loader(tmp_path, 4, bad=5, num_workers=0))
    first = loader(tmp_path, 4, bad=5, on_error="skip")
    second = loader(tmp_path, 4, bad=5, on_error="skip")
    assert samples_of(first) == samples_of(second)
    assert first.stats()["total"]["skipped"] == second.stats()["total"]["skipped"] == 1


def test_who_draws_from_a_generator_of_its_own_is_refused(tmp_path: Path) -> None:
    class Unkeyed(Drawn):
        own = np.random.default_rng(3)

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index)["noise"] * float(self.own.random())

    with pytest.raises(coordl.GroupError, match="two different samples for the same seed"):
        next(iter(coordl.DataLoader(Unkeyed(tmp_path), 4, group="python", seed=1)))


def test_another_transform_or_seed_is_refused(tmp_path: Path) -> None:
    one = loader(tmp_path, 4)
    samples_of(one)
    with pytest.raises(coordl.GroupError, match="its transform is made in Python, the first"):
        samples_of(loader(tmp_path, 4, varying=True))
    with pytest.raises(coordl.GroupError, match="its seed is 8, the group's is 7"):
        samples_of(loader(tmp_path, 4, seed=8))
    other = loader(tmp_path, 4, seed=None)
    assert len(samples_of(other)) == PICTURES and other.seed == SEED


def test_a_worker_killed_in_a_sample_costs_the_other_jobs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "PATIENCE_S", 0.3)
    keep = loader(tmp_path, 2, num_workers=0)
    next(iter(keep))

    def work() -> Any:
        _native._signal_at({"fill:sample": signal.SIGKILL})
        return samples_of(loader(tmp_path, 4, num_workers=0))

    assert Job(work).end() == -signal.SIGKILL
    assert samples_of(loader(tmp_path, 4)) == alone_in_epoch(tmp_path)


def alone_in_epoch(folder: Path) -> list[Any]:
    return alone(folder, 0)


def test_what_has_no_index_or_a_state_is_refused() -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(range(3))

    with pytest.raises(ValueError, match="has no index by which another job could make"):
        coordl.DataLoader(Stream(), 2, group="python")


@pytest.mark.slow
def test_spawned_workers_join_by_name(tmp_path: Path) -> None:
    jobs = [loader(tmp_path, 4, num_workers=1, multiprocessing_context="spawn") for _ in range(2)]
    first = samples_of(jobs[0])
    made(tmp_path)
    assert samples_of(jobs[1]) == first
    assert made(tmp_path) == PROBED


@pytest.mark.parametrize(
    "sample",
    [
        torch.arange(6).view(2, 3).t(),
        torch.tensor(3, dtype=torch.bfloat16),
        torch.zeros(0, 4),
        torch.tensor([True, False]),
        {"a": (1, "b", b"c"), "n": [np.arange(3.0), None]},
        torch.nn.Parameter(torch.ones(2)),
        torch.complex(torch.ones(2), torch.zeros(2)),
    ],
    ids=str,
)
def test_a_record_is_the_sample(sample: Any) -> None:
    got = from_record(to_record(sample))
    assert type(got) is type(sample) and str(got) == str(sample)
    if type(sample) is torch.Tensor:
        assert got.dtype == sample.dtype and torch.equal(got, sample)
        got.view(-1)[:1] = 1  # its own memory


class NoTwoAlike(torch.utils.data.Dataset):
    """Draws from a generator of its own; sample 0 may be a bad one."""

    def __init__(self, bad: int = -1) -> None:
        self.draw, self.bad = random.Random(1), bad

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> float:
        if index == self.bad:
            raise ValueError("bad")
        return self.draw.random()


def test_the_environment_leaves_alone_whose_samples_cannot_be_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COORDL_GROUP", "sweep")
    one = coordl.DataLoader(NoTwoAlike(), 4, num_workers=1)
    assert [len(batch) for batch in one] == [4, 4] and one.stats()["group"] is None
    skipping = coordl.DataLoader(NoTwoAlike(bad=0), 4, num_workers=1, on_error="skip")
    assert [len(batch) for batch in skipping] == [3, 4]


class Timed(Drawn):
    """Writes down when each sample was begun and ended."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        begun = time.monotonic()
        sample = super().__getitem__(index)
        time.sleep(0.03)
        with open(self.folder / "times", "a") as log:
            log.write(f"{begun} {time.monotonic()} {multiprocessing.parent_process() is None}\n")
        return sample


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_workers_make_samples_than_there_are_cores_or_one_job_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(shared_samples, "usable_cores", lambda: 1)
    most = workers  # and one core

    def work(batch: int) -> Any:
        options: dict[str, Any] = {"group": "python", "seed": SEED, "shuffle": True}
        one = hold(coordl.DataLoader(Timed(tmp_path), batch, num_workers=workers, **options))
        return [len(samples_of(one)) for _ in range(2)]

    jobs = [Job(lambda batch=batch: work(batch)) for batch in (3, 4, 5)]
    assert [job.result() for job in jobs] == [[PICTURES] * 2] * 3
    assert [job.end() for job in jobs] == [0, 0, 0]
    lines = [line.split() for line in (tmp_path / "times").read_text().splitlines()]
    # (The main processes look at some samples as they join.)
    spans = [(float(begun), float(ended)) for begun, ended, main in lines if main == "False"]
    assert len(spans) == 2 * PICTURES
    at_once = [sum(a <= begun < b for a, b in spans) for begun, _ in spans]
    assert max(at_once) <= most and (most == 1 or max(at_once) > 1)


def test_who_gets_no_turn_takes_one_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_samples, "usable_cores", lambda: 1)
    monkeypatch.setattr(groups, "PATIENCE_S", 0.3)

    class Endless(Drawn):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if (self.folder / "endless").exists() and multiprocessing.parent_process():
                (self.folder / "endless").unlink()
                os.kill(os.getpid(), signal.SIGSTOP)
            return super().__getitem__(index)

    def make(batch: int) -> coordl.DataLoader:
        options: dict[str, Any] = {"group": "python", "seed": SEED, "shuffle": True}
        return coordl.DataLoader(Endless(tmp_path), batch, num_workers=1, **options)

    def stops() -> Any:
        (tmp_path / "endless").touch()
        running = iter(hold(make(2)))
        hold(running)
        while (tmp_path / "endless").exists():
            time.sleep(0.01)
        return next(iter(multiprocessing.active_children())).pid

    stopped = Job(stops)
    pid = stopped.result()
    one = make(3)
    assert samples_of(one) == alone(tmp_path, 0)
    os.kill(pid, signal.SIGCONT)
    assert stopped.end() == 0


def test_a_reader_that_stops_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "PATIENCE_S", 0.3)
    options: dict[str, Any] = {"num_workers": 0, "staging": 4 * (4096 + 128)}
    expected = alone(tmp_path, 0)
    first = loader(tmp_path, 2, **options)
    running = iter(first)
    head = [next(running)]

    def stops() -> None:
        one = iter(loader(tmp_path, 2, **options))
        _native._signal_at({"read:entered": signal.SIGSTOP})
        list(one)

    job = Job(stops)
    job.wait_stopped()
    begin = time.monotonic()
    got = [row for batch in [*head, *running] for row in rows(batch)]
    assert got == expected
    assert time.monotonic() - begin < 30
    job.kill()
    assert job.end() == -signal.SIGKILL
