"""A job that comes late takes the group's epoch from where it stands, and what it missed last."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from group_jobs import PICTURES, SEED, Job, alone, batches_of, loader
from test_group_python import alone as alone_in_python
from test_group_python import loader as python_loader
from test_group_python import rows

import coordl
from coordl.delivery import proof

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
SLOTS = 4  # each of one picture
STAGING = int(SLOTS * (-(-np.prod((3, 24, 24)) * 4 // 4096) * 4096 + 128))
Samples = list[tuple[bytes, int]]


def narrow(folder: Path, batch: int, **more: Any) -> coordl.DataLoader:
    """A loader of a group that stages four pictures; it prepares no further ahead than one
    minibatch."""
    return loader(folder, batch, staging=STAGING, num_workers=1, prefetch_factor=1, **more)


def samples_of(batches: Any) -> Samples:
    size = 3 * 24 * 24 * 4
    return [
        (pictures[at * size : (at + 1) * size], label)
        for pictures, labels in batches
        for at, label in enumerate(labels)
    ]


def epoch_alone(folder: Path, epoch: int) -> Samples:
    return samples_of(alone(folder, 1, epoch))


def from_on(samples: list[Any], first: int) -> list[Any]:
    return samples[first:] + samples[:first]


def in_mid_epoch(one: coordl.DataLoader, epoch: int, minibatches: int) -> Iterator[Any]:
    for _ in range(epoch):
        assert len(list(one)) == len(one)
    running = iter(one)
    for _ in range(minibatches):
        next(running)
    return running


def of_another_job(work: Any) -> Any:
    job = Job(work)
    result = job.result()
    assert job.end() == 0
    return result


@pytest.mark.parametrize("drop_last", [False, True])
def test_it_begins_where_the_others_are(folder: Path, drop_last: bool) -> None:
    first = narrow(folder, 2)
    running = in_mid_epoch(first, 1, 6)

    def work() -> Any:
        one = narrow(folder, 3, drop_last=drop_last, verify=True)
        got = [samples_of(batches_of(one))]
        proofs = [one.verify_epoch()]
        got.append(samples_of(batches_of(one)))
        return got, [*proofs, one.verify_epoch()], one.stats()

    (joined, later), proofs, stats = of_another_job(work)
    began_at = stats["epochs"][0]["began_at"]
    assert 12 <= began_at <= 16  # what the first had yielded or asked for
    count = 21 if drop_last else PICTURES
    assert joined == from_on(epoch_alone(folder, 1), began_at)[:count]
    assert later == epoch_alone(folder, 2)[:count]  # the first did not go on meanwhile
    assert [epoch["epoch"] for epoch in stats["epochs"]] == [1, 2]
    assert stats["epochs"][1]["began_at"] == 0
    assert [proof["epoch"] for proof in proofs] == [1, 2]
    assert [proof["began_at"] for proof in proofs] == [began_at, 0]
    assert all(proof["samples"] == proof["distinct"] == count for proof in proofs)
    assert samples_of(batches_of(running)) == epoch_alone(folder, 1)[12:]


def test_the_same_proof_as_one_that_came_in_time(folder: Path) -> None:
    first = narrow(folder, 2, verify=True)
    running = in_mid_epoch(first, 0, 8)

    def work() -> Any:
        one = narrow(folder, 5, verify=True)
        assert len(list(one)) == len(one)
        return one.verify_epoch()

    late = of_another_job(work)
    assert len(list(running)) == 3
    assert late.pop("began_at") > 0
    own = first.verify_epoch()
    assert own.pop("began_at") == 0
    assert late == own and late["content"]


def test_what_is_staged_from_the_epochs_begin_on_is_taken_from_there(folder: Path) -> None:
    first = loader(folder, 2)  # stages two epochs
    running = in_mid_epoch(first, 2, 6)

    def work() -> Any:
        one = loader(folder, 3)
        return samples_of(batches_of(one)), one.stats()["epochs"][0]

    got, epoch = of_another_job(work)
    assert (epoch["epoch"], epoch["began_at"]) == (2, 0)
    assert got == epoch_alone(folder, 2)
    assert epoch["shared"]["staged"] >= 12 and epoch["shared"]["alone"] == 0
    assert len(list(running)) == 5


def test_between_epochs_it_begins_the_next(folder: Path) -> None:
    first = narrow(folder, 2)
    assert len(list(first)) == 11

    def work() -> Any:
        one = narrow(folder, 3)
        return samples_of(batches_of(one)), one.stats()["epochs"][0]

    got, epoch = of_another_job(work)
    assert (epoch["epoch"], epoch["began_at"]) == (1, 0)
    assert got == epoch_alone(folder, 1)


def test_its_state_goes_on_at_another_batch_size(folder: Path) -> None:
    first = narrow(folder, 2)
    running = in_mid_epoch(first, 1, 6)

    def work() -> Any:
        one = narrow(folder, 3)
        head = samples_of(batches_of(itertools.islice(one, 2)))
        state = one.state_dict()
        other = narrow(folder, 4)
        other.load_state_dict(state)
        return head + samples_of(batches_of(other)), one.stats()["epochs"][0]["began_at"]

    got, began_at = of_another_job(work)
    assert began_at > 0
    assert got == from_on(epoch_alone(folder, 1), began_at)
    assert len(list(running)) == 5


def test_an_order_that_is_not_ours_is_left_as_it_is(folder: Path) -> None:
    data = coordl.ImageFolder(folder)
    ranks = torch.utils.data.DistributedSampler(data, num_replicas=1, rank=0, seed=SEED)
    for number, chosen in enumerate(({"sampler": ranks}, {"generator": None}, {"shuffle": False})):
        options: dict[str, Any] = {"group": f"own-{number}", **chosen}
        options.setdefault("shuffle", None if "sampler" in chosen else True)

        def make(options: Any = options) -> coordl.DataLoader:
            own = torch.Generator().manual_seed(SEED)
            return narrow(
                folder, 2, **{**options, **({"generator": own} if "generator" in options else {})}
            )

        first = make()
        running = in_mid_epoch(first, 0, 8)

        def work(make: Any = make) -> Any:
            one = make()
            return samples_of(batches_of(one)), one.stats()["epochs"][0]

        got, epoch = of_another_job(work)
        assert (epoch["epoch"], epoch["began_at"]) == (0, 0)
        assert len(set(got)) == PICTURES
        assert len(list(running)) == 3
        if "shuffle" in chosen:
            assert [label for _, label in got] == [label for _, label in data.samples]


def test_jobs_that_were_far_ahead_and_left_stand_in_nobodys_way(folder: Path) -> None:
    def ranked() -> Any:
        data = coordl.ImageFolder(folder)
        sampler = torch.utils.data.DistributedSampler(data, num_replicas=1, rank=0, seed=SEED)
        return loader(folder, 4, sampler=sampler, shuffle=None)

    def far_ahead() -> None:
        one = ranked()
        for epoch in (50, 51):
            one.sampler.set_epoch(epoch)
            assert len(list(one)) == len(one)

    first, second = ranked(), ranked()
    assert len(list(first)) == len(list(second))
    of_another_job(far_ahead)
    for epoch in (1, 2, 3):
        for one in (first, second):
            one.sampler.set_epoch(epoch)
            assert len(list(one)) == len(one)
        shared = [one.stats()["epochs"][-1]["shared"] for one in (first, second)]
        assert shared[0]["prepared"] == PICTURES and shared[1]["alone"] == 0


def test_a_proof_tells_jobs_that_left_out_other_samples_apart() -> None:
    order = np.arange(10, 20)
    assert proof._in_place(order, 0, 10).tolist() == order.tolist()
    assert proof._in_place(order, 4, 10).tolist() == order.tolist()
    assert proof._in_place(order, 0, 8).tolist() == [10, 11, 12, 13, 14, 15, 16, 17]
    # From 14 on, and without the last two of that: 12 and 13.
    assert proof._in_place(order, 4, 8).tolist() == [10, 11, 14, 15, 16, 17, 18, 19]


def test_workers_of_python_data_sets_begin_there_too(tmp_path: Path) -> None:
    expected = [alone_in_python(tmp_path, epoch) for epoch in range(3)]
    options: dict[str, Any] = {"staging": 4 * (4096 + 128), "num_workers": 1, "prefetch_factor": 1}
    first = python_loader(tmp_path, 2, **options)
    running = in_mid_epoch(first, 1, 6)

    def work() -> Any:
        one = python_loader(tmp_path, 3, **options)
        got = [[row for batch in one for row in rows(batch)] for _ in range(2)]
        return got, one.stats()["epochs"]

    (joined, later), epochs = of_another_job(work)
    began_at = epochs[0]["began_at"]
    assert epochs[0]["epoch"] == 1 and began_at > 0
    assert joined == from_on(expected[1], began_at)
    assert later == expected[2] and epochs[1]["began_at"] == 0
    assert [row for batch in running for row in rows(batch)] == expected[1][12:]
