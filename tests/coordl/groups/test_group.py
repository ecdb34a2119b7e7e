"""Jobs of a group get what each would alone, and each sample is prepared once for all of them."""

from __future__ import annotations

import copy
import gc
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from group_jobs import (
    PICTURES,
    SEED,
    Job,
    alone,
    batches_of,
    epochs_of,
    hold,
    loader,
    prepared,
    transform,
)

import coordl
from coordl import _native

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def test_a_lone_member_gives_what_a_lone_loader_gives(folder: Path) -> None:
    for workers in (0, 3):
        one = loader(folder, 5, num_workers=workers)
        got = epochs_of(one, 3)
        assert got == [alone(folder, 5, epoch) for epoch in range(3)]
        assert got[0] != got[1]
        assert prepared(one.stats()) == 3 * PICTURES
        del one


@pytest.mark.parametrize("batches", [(4, 4), (3, 5, 8)], ids=str)
def test_jobs_of_any_batch_size_get_their_own_and_prepare_each_sample_once(
    folder: Path, batches: tuple[int, ...]
) -> None:
    def work(batch: int) -> Any:
        one = hold(loader(folder, batch))
        return epochs_of(one, 2), one.stats()

    jobs = [Job(lambda batch=batch: work(batch)) for batch in batches]
    results = [job.result() for job in jobs]
    assert [job.end() for job in jobs] == [0] * len(jobs)
    for batch, (got, _) in zip(batches, results, strict=True):
        assert got == [alone(folder, batch, epoch) for epoch in range(2)]
    assert sum(prepared(stats) for _, stats in results) == 2 * PICTURES


def test_members_may_drop_the_last_read_in_order_and_end_when_they_like(folder: Path) -> None:
    keep = loader(folder, 6, shuffle=False)
    first = iter(keep)
    got = [next(first)]

    def work() -> Any:
        one = loader(folder, 4, shuffle=False, drop_last=True)
        return epochs_of(one, 1)[0], one.stats()

    job = Job(work)
    theirs, stats = job.result()
    assert job.end() == 0
    got += list(first)
    plain = loader(folder, 4, group=None, shuffle=False, drop_last=True)
    assert theirs == batches_of(plain) and len(theirs) == 5
    lone = batches_of(loader(folder, 6, group=None, shuffle=False))
    assert [(i.numpy().tobytes(), n.tolist()) for i, n in got] == lone
    assert prepared(stats) + prepared(keep.stats()) == PICTURES
    later = batches_of(keep)  # the other is gone
    assert len(later) == 4 and later != lone


def test_who_joins_in_mid_epoch_takes_what_is_there(folder: Path) -> None:
    first = loader(folder, 2)
    running = iter(first)
    for _ in range(6):
        next(running)
    second = loader(folder, 3)
    assert batches_of(second) == alone(folder, 3, 0)
    shared = second.stats()["epochs"][0]["shared"]
    # What the first had in hand or done was not done again: 6 minibatches, and up to 4 ahead.
    assert prepared(first.stats()) + shared["prepared"] + shared["alone"] == PICTURES
    assert len(list(running)) == 5
    assert prepared(first.stats()) + prepared(second.stats()) == PICTURES


def test_a_job_that_is_behind_the_window_prepares_for_itself(folder: Path) -> None:
    slots = 4
    sample = np.prod((3, 24, 24)) * 4
    size = int(slots * (-(-sample // 4096) * 4096 + 128))
    slow = loader(folder, 2, staging=size, num_workers=1, prefetch_factor=1)
    behind = iter(slow)
    got = [next(behind)]
    fast = loader(folder, 5, staging=size)
    assert epochs_of(fast, 2) == [alone(folder, 5, epoch) for epoch in range(2)]
    assert fast.stats()["group"]["slots"] == slots
    got += list(behind)
    assert [(i.numpy().tobytes(), n.tolist()) for i, n in got] == alone(folder, 2, 0)
    # Once the fast one has gone from there, what it staged is in nobody's way.
    shared = slow.stats()["epochs"][0]["shared"]
    assert shared["prepared"] + shared["alone"] > 0


def test_a_state_goes_on_in_a_running_group_at_another_batch_size(folder: Path) -> None:
    first = loader(folder, 4)
    running = iter(first)
    head = [next(running) for _ in range(2)]
    state = first.state_dict()
    second = loader(folder, 3)
    second.load_state_dict(state)
    got = [(i.numpy().tobytes(), n.tolist()) for i, n in head] + batches_of(second)
    whole = alone(folder, 1, 0)
    assert b"".join(pictures for pictures, _ in got) == b"".join(pictures for pictures, _ in whole)
    list(running)
    assert prepared(first.stats()) + prepared(second.stats()) == PICTURES
    assert epochs_of(second, 1) == [alone(folder, 3, 1)]


def test_a_state_of_an_epochs_end_goes_on_with_the_groups_next_epoch(folder: Path) -> None:
    first = loader(folder, 4)
    assert len(batches_of(first)) == 6
    state = first.state_dict()
    assert batches_of(first) == alone(folder, 4, 1)
    second = loader(folder, 3)
    second.load_state_dict(state)
    assert epochs_of(second, 2) == [alone(folder, 3, epoch) for epoch in (1, 2)]


def test_an_epoch_is_proved_and_digests_agree_whatever_the_batch_size(folder: Path) -> None:
    first, second = loader(folder, 4, verify=True), loader(folder, 5, verify=True)
    with pytest.raises(coordl.GroupError, match="no epoch has ended"):
        first.verify_epoch()
    list(first), list(second)
    proof = first.verify_epoch()
    assert proof == second.verify_epoch()
    assert (proof["samples"], proof["distinct"], proof["epoch"]) == (PICTURES, PICTURES, 0)
    list(second)
    other = second.verify_epoch()
    assert other["epoch"] == 1
    assert other["order"] != proof["order"] and other["content"] != proof["content"] is not None
    dropping = loader(folder, 4, drop_last=True)
    list(dropping)
    assert (dropping.verify_epoch()["samples"], dropping.verify_epoch()["content"]) == (20, None)
    # What was yielded is compared with the order, not believed.
    position = first._local.resume.position
    assert position is not None
    position.order.mark = position.order.mark._replace(digest=1)
    with pytest.raises(coordl.GroupError, match="yielded 22 samples in an order of digest 000000"):
        first.verify_epoch()


def test_two_passes_of_one_loader_at_a_time_share_too(folder: Path) -> None:
    one = loader(folder, 4)
    pairs = list(zip(one, one, strict=True))  # both begin as epoch 0
    assert len(pairs) == 6 and all(torch.equal(a[0], b[0]) for a, b in pairs)
    assert prepared(one.stats()) == PICTURES


def test_a_pass_left_early_holds_nothing(folder: Path, shm_dir: Path) -> None:
    for _ in range(5):
        one = loader(folder, 2, num_workers=4)
        next(iter(one))
        assert _native.list_rings()[0]["claimed"] == 0  # the iterator is gone already
        assert batches_of(loader(folder, 2)) is not None
        del one
    gc.collect()
    assert os.listdir(shm_dir) == []


def test_samples_pillow_makes_are_the_same_for_all(folder: Path) -> None:
    with open(folder / "class0" / "004.jpg", "r+b") as file:  # cut off: Pillow decides
        file.truncate(folder.joinpath("class0", "004.jpg").stat().st_size - 60)
    from PIL import Image

    with Image.open(folder / "class1" / "003.jpg") as picture:
        picture.convert("CMYK").save(folder / "class1" / "003.jpg", "JPEG")
    options: dict[str, Any] = {"on_error": "skip"}
    expected = alone(folder, 4, 0, **options)
    first, second = loader(folder, 4, **options), loader(folder, 4, **options)
    assert batches_of(first) == expected
    assert batches_of(second) == expected
    assert first.stats()["total"]["skipped"] == second.stats()["total"]["skipped"]


def test_what_differs_is_named(folder: Path) -> None:
    one = loader(folder, 4)
    list(one)
    for change, said in (
        ({"seed": 8}, r"its seed is 8, the group's is 7"),
        ({"shuffle": False}, r"its order is SequentialSampler, the group's is RandomSampler"),
        ({"transform": transform(32)}, r"its transform is .*32.*24"),
        ({"generator": torch.Generator().manual_seed(1)}, r"order of epoch 0 is another"),
    ):
        with pytest.raises(coordl.GroupError, match=said):
            list(loader(folder, 4, **change))
    (folder / "class0" / "000.jpg").unlink()
    with pytest.raises(coordl.GroupError, match=r"its data set is .*21 samples.*22 samples"):
        list(loader(folder, 4))
    assert _native.list_rings()[0]["users"] == 1


def test_who_names_no_seed_takes_the_groups(folder: Path) -> None:
    one = loader(folder, 4)
    next(iter(one))
    other = loader(folder, 4, seed=None)
    got = batches_of(other)
    assert other.seed == SEED and got == alone(folder, 4, 0)
    del one, other
    gc.collect()
    first, again = (loader(folder, 4, seed=None, group="own") for _ in range(2))
    got = batches_of(first)
    del first
    gc.collect()
    assert batches_of(again) == got  # another run of the same group


def test_what_cannot_be_shared_is_refused(folder: Path) -> None:
    class Other(torch.utils.data.SequentialSampler):
        pass

    data = coordl.ImageFolder(folder, transform())
    with pytest.raises(ValueError, match=r"sampler is a .*Other, which may draw as it goes"):
        coordl.DataLoader(data, 4, sampler=Other(data), group="sweep")
    with pytest.raises(ValueError, match="peers= asks other servers for items"):
        loader(folder, 4, cache="1MiB", peers="auto")
    with pytest.raises(ValueError, match="staging='10%': give bytes"):
        loader(folder, 4, staging="10%")
    with pytest.raises(ValueError, match="bad group name 'a/b'"):
        loader(folder, 4, group="a/b")
    with pytest.raises(coordl.GroupError, match=r"two slots of .* do not fit in the 4096 bytes"):
        list(loader(folder, 4, staging=4096))


def test_copies_and_loaders_over_the_same_sampler_are_members_too(folder: Path) -> None:
    one = loader(folder, 4)
    first = batches_of(one)
    copied, deep = copy.copy(one), copy.deepcopy(one)
    rebuilt = loader(folder, 4, shuffle=None, sampler=one.sampler)
    for other in (copied, deep, rebuilt):
        assert batches_of(other) == first


def test_the_environment_groups_what_can_share_and_leaves_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COORDL_GROUP", "sweep")
    train = [loader(folder, 4, group=None) for _ in range(2)]
    held_out = loader(folder, 4, group=None, shuffle=False, transform=transform(32))
    assert batches_of(train[0]) == batches_of(train[1])
    assert sum(prepared(one.stats()) for one in train) == PICTURES
    assert len(list(held_out)) == 6 and prepared(held_out.stats()) == PICTURES
    assert len(_native.list_rings()) == 2
    plain = coordl.DataLoader(range(10), 4)
    assert len(list(plain)) == 3 and plain.stats()["group"] is None


def test_ranks_share_with_their_own_kind(folder: Path) -> None:
    data = coordl.ImageFolder(folder, transform())
    made = 0
    for rank in range(2):
        for _ in range(2):
            sampler: Any = torch.utils.data.DistributedSampler(data, 2, rank)
            one = coordl.DataLoader(data, 4, sampler=sampler, seed=SEED, group="ranks")
            list(one)
            made += prepared(one.stats())
            globals().setdefault("_kept", []).append(one)
    assert made == 2 * 11
    assert [ring["name"] for ring in _native.list_rings()] == [
        "ranks.rank-0-of-2",
        "ranks.rank-1-of-2",
    ]
    globals().pop("_kept")


def test_a_forked_child_is_a_member_of_its_own(folder: Path) -> None:
    one = loader(folder, 4)
    first = batches_of(one)

    def work() -> Any:
        return batches_of(one), one.stats()["group"]["members"]

    job = Job(work)
    got, members = job.result()
    assert first == alone(folder, 4, 0) and got == alone(folder, 4, 1)
    assert {member["pid"] for member in members} == {os.getpid(), job.pid}
    assert job.end() == 0
    assert len(one.stats()["group"]["members"]) == 1
    assert list(itertools.islice(one, 1))


def test_the_last_to_leave_removes_the_ring(folder: Path, shm_dir: Path) -> None:
    one = loader(folder, 4)
    list(one)
    assert len(os.listdir(shm_dir)) == 2
    del one
    gc.collect()
    assert os.listdir(shm_dir) == []
