"""Minibatches of a group lie where they are staged, and are private all the same."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from group_jobs import PICTURES, Job, alone, batches_of, loader, transform

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
EDGE = 32  # a sample is three pages: slots have no gaps between them


def gapless(folder: Path, batch: int, **more: Any) -> Any:
    return loader(folder, batch, transform=transform(EDGE), **more)


def expected(folder: Path, batch: int, epoch: int) -> Any:
    return alone(folder, batch, epoch, transform=transform(EDGE))


def viewed(one: Any) -> int:
    return sum(epoch["shared"]["viewed"] for epoch in one.stats()["epochs"])


def test_a_minibatch_is_not_copied_where_it_lies_in_one_piece(folder: Path) -> None:
    one = gapless(folder, 3)
    assert [batches_of(one) for _ in range(3)] == [expected(folder, 3, n) for n in range(3)]
    assert viewed(one) > PICTURES  # the ring's end lies in some


def test_minibatches_that_are_kept_stay_what_they_are(folder: Path) -> None:
    one = gapless(folder, 2)
    kept = list(one)
    others = [batches_of(gapless(folder, 5)) for _ in range(1)]
    for _ in range(5):
        batches_of(one)
    assert [(i.numpy().tobytes(), n.tolist()) for i, n in kept] == expected(folder, 2, 0)
    assert others == [expected(folder, 5, 0)]
    assert viewed(one) > 0


def test_what_one_job_writes_the_other_does_not_see(folder: Path) -> None:
    first = gapless(folder, 4)
    running = iter(first)
    got = []
    for images, labels in itertools.islice(running, 3):
        got.append((images.numpy().tobytes(), labels.tolist()))
        images.fill_(7.0)

    job = Job(lambda: batches_of(gapless(folder, 4)))
    theirs = job.result()
    assert job.end() == 0
    assert theirs == expected(folder, 4, 0)
    assert got + batches_of(running) == theirs
    assert viewed(first) > 0


@pytest.mark.parametrize(("first", "second"), [(4, 4), (2, 4), (1, 3), (5, 2)])
def test_loaders_of_one_process_do_not_see_what_the_other_writes(
    folder: Path, first: int, second: int
) -> None:
    one, other = gapless(folder, first), gapless(folder, second)
    running, beside = iter(one), iter(other)
    kept = []
    for expects in expected(folder, first, 0):
        images, labels = next(running)
        assert (images.numpy().tobytes(), labels.tolist()) == expects
        images.fill_(7.0)
        kept.append(images)
        if (got := next(beside, None)) is not None:
            kept.append(got[0])
            got[0].fill_(9.0)
    assert all(float(images.min()) == float(images.max()) for images in kept)
    del kept
    assert batches_of(other) == expected(folder, second, 1)
    assert viewed(one) + viewed(other) > 0


def test_an_epoch_that_is_begun_again_is_as_it_was_whatever_was_written(folder: Path) -> None:
    one = gapless(folder, 4)
    start, right = one.state_dict(), expected(folder, 4, 0)
    for attempt in range(3):
        for number, (images, labels) in enumerate(one):
            assert (images.numpy().tobytes(), labels.tolist()) == right[number]
            images.fill_(7.0)
            if attempt < 2 and number == 1:
                break
        one.load_state_dict(start)
    assert viewed(one) > 0


def test_a_forked_child_keeps_what_it_inherits(folder: Path) -> None:
    one = gapless(folder, 4)
    running = iter(one)
    images, _ = next(running)
    before = images.clone()
    asked, answer = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(asked[0], 1)
        os.write(answer[1], b"y" if torch.equal(images, before) else b"n")
        os._exit(0)
    del images
    for _ in running:
        pass
    for _ in range(4):
        batches_of(one)
    os.write(asked[1], b"x")
    assert os.read(answer[0], 1) == b"y"
    os.waitpid(pid, 0)
    for each in (*asked, *answer):
        os.close(each)
    assert viewed(one) > 0


def test_a_job_that_keeps_a_minibatch_holds_nobody_up(folder: Path) -> None:
    slots = 8 * 3 * 4096
    slow = gapless(folder, 1, staging=slots, num_workers=1, prefetch_factor=1)
    kept = next(iter(slow))

    def work() -> Any:
        one = gapless(folder, 1, staging=slots)
        return [batches_of(one) for _ in range(2)], one.stats()["epochs"]

    job = Job(work)
    got, epochs = job.result()
    assert job.end() == 0
    assert got == [expected(folder, 1, n) for n in range(2)]
    assert all(epoch["shared"]["given_up"] == 0 for epoch in epochs)
    assert (kept[0].numpy().tobytes(), kept[1].tolist()) == expected(folder, 1, 0)[0]


def test_a_minibatch_that_is_kept_is_no_membership(folder: Path, shm_dir: Path) -> None:
    kept = list(gapless(folder, 2))
    assert os.listdir(shm_dir) == []  # the loader is gone
    other = loader(folder, 2, transform=transform(EDGE + 16))  # a transform of its own
    assert len(batches_of(other)) == 11
    assert [(i.numpy().tobytes(), n.tolist()) for i, n in kept] == expected(folder, 2, 0)
