"""A pass goes on where a state says: same samples, same bits, nothing made again."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from recipe import native_threads, train_transform
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

import coordl
from coordl import transforms as T

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class Recording(torch.utils.data.Dataset):
    """Numbers, with draws from all three global generators; knows what it was asked for."""

    def __init__(self, size: int = 40) -> None:
        self.size = size
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        self.asked.append(index)
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        return torch.tensor([index, *drawn], dtype=torch.float64)


class Plain(Recording):
    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        self.asked.append(index)
        return index


def numbers(batches: Any) -> list[int]:
    return [int(one) for batch in batches for one in batch]


def same(left: list[Any], right: list[Any]) -> bool:
    if len(left) != len(right):
        return False
    return all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def halves(loader: Any, taken: int) -> tuple[list[Any], dict[str, Any], list[Any]]:
    """(what came before, the state, what came after)."""
    iterator = iter(loader)
    before = list(itertools.islice(iterator, taken))
    state = json.loads(json.dumps(loader.state_dict()))
    return before, state, list(iterator)


ORDERS = {
    "sequential": lambda data: {},
    "shuffle": lambda data: {"shuffle": True},
    "loader's generator": lambda data: {
        "shuffle": True, "generator": torch.Generator().manual_seed(3),
    },
    "sampler's generator": lambda data: {
        "sampler": RandomSampler(data, generator=torch.Generator().manual_seed(4))
    },
    "replacement": lambda data: {
        "sampler": RandomSampler(data, True, 90, torch.Generator().manual_seed(4))
    },
    "twice": lambda data: {"sampler": RandomSampler(data, num_samples=90)},
    "subset": lambda data: {"sampler": SubsetRandomSampler(range(1, 40, 2))},
    "weighted": lambda data: {"sampler": WeightedRandomSampler([1.0, 3.0] * 20, 37)},
    "own batches": lambda data: {
        "batch_sampler": [[5, 6, 7], [1], [2, 3], [9, 8, 30, 31], [4], [0, 39]]
    },
    "batch sampler": lambda data: {
        "batch_sampler": BatchSampler(
            RandomSampler(data, generator=torch.Generator().manual_seed(4)), 3, True
        )
    },
    "list": lambda data: {"sampler": list(range(39, 2, -1))},
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 2), (2, 0)])
def test_the_order_goes_on_and_nothing_is_made_again(order: str, before: int, after: int) -> None:
    for taken in (0, 1, 5):
        data = Plain()
        more = ORDERS[order](data)
        sized = {} if "batch_sampler" in more else {"batch_size": 3}
        torch.manual_seed(8)
        first = coordl.DataLoader(data, num_workers=before, **sized, **more)
        given, state, expected = halves(first, taken)
        following = list(first)
        torch.manual_seed(8)
        theirs = list(torch.utils.data.DataLoader(data, **sized, **ORDERS[order](data)))
        assert numbers(given + expected) == numbers(theirs)
        again = Plain()
        second = coordl.DataLoader(again, num_workers=after, **sized, **ORDERS[order](again))
        torch.manual_seed(77)  # what else was drawn meanwhile is no matter
        second.load_state_dict(state)
        assert numbers(second) == numbers(expected)
        if after == 0:
            assert again.asked == numbers(expected)
        assert numbers(second) == numbers(following)  # and so does the next epoch


def test_a_state_has_constant_size() -> None:
    sizes = []
    for count, taken in ((1_000, 3), (100_000, 1_500)):
        loader = coordl.DataLoader(Plain(count), 10, shuffle=True, seed=1)
        iterator = iter(loader)
        for _ in range(taken):
            next(iterator)
        sizes.append(len(json.dumps(loader.state_dict())))
    assert abs(sizes[0] - sizes[1]) < 100 and sizes[0] < 16_384


def test_what_was_prefetched_is_not_consumed() -> None:
    loader = coordl.DataLoader(Plain(), 4, num_workers=2, prefetch_factor=4)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    assert (state["samples"], state["minibatches"]) == (4, 1)


@pytest.mark.parametrize(("before", "after"), [(4, 3), (3, 8)])
def test_another_batch_size_goes_on_with_the_next_sample(before: int, after: int) -> None:
    data = Plain()
    generator = torch.Generator().manual_seed(2)
    given, state, expected = halves(
        coordl.DataLoader(data, before, shuffle=True, generator=generator), 5
    )
    second = coordl.DataLoader(data, after, shuffle=True, generator=torch.Generator())
    second.load_state_dict(state)
    got = list(second)
    assert numbers(got) == numbers(expected)
    assert {len(batch) for batch in got[:-1]} == {after}
    assert sorted(numbers(given + got)) == list(range(40))


def test_minibatches_of_ones_own_give_their_rest_first() -> None:
    fours = [list(range(at, at + 4)) for at in range(0, 40, 4)]
    sixes = [list(range(at, min(40, at + 6))) for at in range(0, 40, 6)]
    _, state, _ = halves(coordl.DataLoader(Plain(), batch_sampler=fours), 2)
    second = coordl.DataLoader(Plain(), batch_sampler=sixes)
    second.load_state_dict(state)
    assert [batch.tolist() for batch in second] == [sixes[1][2:], *sixes[2:]]


def test_drop_last_and_single_samples_go_on() -> None:
    for more in ({"batch_size": 7, "drop_last": True}, {"batch_size": None}):
        loader = coordl.DataLoader(Plain(), shuffle=True, **more)
        _, state, expected = halves(loader, 3)
        second = coordl.DataLoader(Plain(), shuffle=True, **more)
        second.load_state_dict(state)
        got = list(second)
        assert [np.ravel(b).tolist() for b in got] == [np.ravel(b).tolist() for b in expected]


def user_transform() -> T.Compose:
    def draw(picture: Any) -> torch.Tensor:
        drawn = torch.rand(2) + random.random() + float(np.random.rand())
        return torch.cat([drawn, torch.tensor([picture.width, picture.getpixel((1, 1))[0]])])

    return T.Compose([T.RandomResizedCrop(16), draw])


@pytest.mark.parametrize("how", ["native", "python", "prefix"])
def test_with_a_seed_bits_go_on_with_any_number_of_workers(folder: Path, how: str) -> None:
    transform = train_transform(16) if how == "native" else user_transform()
    data = coordl.ImageFolder(folder, transform)
    more: dict[str, Any] = {"shuffle": True, "seed": 5}
    more["prep"] = "auto" if how == "prefix" else how

    def fresh(workers: int, size: int = 4) -> coordl.DataLoader:
        generator = torch.Generator().manual_seed(1)
        return coordl.DataLoader(data, size, num_workers=workers, generator=generator, **more)

    whole = fresh(0)
    epochs = [list(whole), list(whole), list(whole)]
    for before, after in ((0, 2), (2, 0), (1, 2), (0, 8)):
        first = fresh(before)
        list(first)
        given, state, _ = halves(first, 2)
        second = fresh(after)
        second.load_state_dict(state)
        assert same(given + list(second), epochs[1])
        assert same(list(second), epochs[2])
        record = second.stats()["epochs"][0]
        assert (record["epoch"], record["samples"]) == (1, 14)
    other = fresh(0, 3)
    other.load_state_dict(state)
    pixels = torch.cat([images for images, _ in other])
    assert torch.equal(pixels, torch.cat([images for images, _ in epochs[1][2:]]))
    assert native_threads() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_seed_native_bits_go_on(folder: Path, workers: int) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    for kept in (False, workers > 0):
        first = coordl.DataLoader(
            data, 4, shuffle=True, num_workers=workers, persistent_workers=kept
        )
        list(first)
        _, state, expected = halves(first, 2)
        following = list(first)
        second = coordl.DataLoader(
            data, 4, shuffle=True, num_workers=workers, persistent_workers=kept
        )
        second.load_state_dict(state)
        assert same(list(second), expected)
        assert same(list(second), following)


def test_a_native_resume_reads_only_what_is_left(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    _, state, _ = halves(coordl.DataLoader(data, 4, shuffle=True, seed=1), 3)
    second = coordl.DataLoader(data, 4, shuffle=True, seed=1, num_workers=2)
    second.load_state_dict(state)
    list(second)
    record = second.stats()["epochs"][0]
    assert record["samples"] == 10
    assert record["from_original"] == 10
    assert native_threads() == []


def test_an_iterator_made_for_a_state_is_the_next_one(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    for workers in (0, 2):
        loader = coordl.DataLoader(data, 4, shuffle=True, num_workers=workers)
        state = loader.state_dict()
        expected = list(loader)
        assert len(loader.stats()["epochs"]) == 1
        loader.load_state_dict(state)
        assert same(list(loader), expected)


def test_an_iterator_that_was_dropped_at_once_is_no_pass() -> None:
    loader = coordl.DataLoader(Plain(), 4, shuffle=True)
    iter(loader)
    state = loader.state_dict()
    expected = numbers(loader)
    loader.load_state_dict(state)
    assert numbers(loader) == expected


def test_a_state_survives_its_iterator_and_a_break() -> None:
    for workers in (0, 2):
        loader = coordl.DataLoader(Plain(), 4, num_workers=workers)
        for count, _ in enumerate(loader):
            if count == 4:
                break
        second = coordl.DataLoader(Plain(), 4)
        second.load_state_dict(loader.state_dict())
        assert numbers(second) == list(range(20, 40))


def test_resumed_twice_it_is_still_exact() -> None:
    loader = coordl.DataLoader(Recording(), 4, shuffle=True, seed=2)
    whole = list(iter(loader))
    loader = coordl.DataLoader(Recording(), 4, sampler=_order_of(whole), seed=2)
    got: list[Any] = []
    for taken in (3, 2, 4, 1):
        iterator = iter(loader)
        got += list(itertools.islice(iterator, taken))
        state = loader.state_dict()
        loader = coordl.DataLoader(Recording(), 4, sampler=_order_of(whole), seed=2)
        loader.load_state_dict(state)
    assert torch.equal(torch.cat(got), torch.cat(whole))
    assert list(loader) == []
    assert len(list(loader)) == 10


def _order_of(batches: list[Any]) -> list[int]:
    return [int(row[0]) for batch in batches for row in batch]


def test_a_loaded_state_can_be_forgotten() -> None:
    loader = coordl.DataLoader(Plain(), 4)
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    loader.load_state_dict({})
    assert numbers(loader) == list(range(40))


def test_torchs_global_generator_is_left_alone_where_it_does_not_order() -> None:
    for more in ({}, {"shuffle": True, "generator": torch.Generator().manual_seed(1)}):
        loader = coordl.DataLoader(Plain(), 4, **more)
        _, state, _ = halves(loader, 3)
        torch.manual_seed(6)
        expected = torch.rand(3)
        torch.manual_seed(6)
        loader.load_state_dict(state)
        list(loader)
        assert torch.equal(torch.rand(3), expected)


def test_torchs_global_generator_goes_on_from_the_state_where_it_orders() -> None:
    loader = coordl.DataLoader(Plain(), 4, shuffle=True)
    iterator = iter(loader)
    next(iterator)
    torch.rand(5)  # somebody else's draws
    state = loader.state_dict()
    expected = torch.rand(3)
    torch.manual_seed(1)
    loader.load_state_dict(state)
    next(iter(loader))
    assert torch.equal(torch.rand(3), expected)


# -- the epoch ------------------------------------------------------------------------------------


class Epochs(torch.utils.data.Sampler):
    """Shuffles by its epoch, as set_epoch says."""

    def __init__(self, size: int) -> None:
        self.size, self.epoch = size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())

    def __len__(self) -> int:
        return self.size


def test_a_samplers_epoch_is_that_of_the_state() -> None:
    sampler = Epochs(40)
    loader = coordl.DataLoader(Recording(), 4, sampler=sampler, seed=3)
    sampler.set_epoch(7)
    _, state, expected = halves(loader, 4)
    assert state["epoch"] == 7
    for set_again in (False, True):
        sampler = Epochs(40)
        second = coordl.DataLoader(Recording(), 4, sampler=sampler, seed=3)
        second.load_state_dict(state)
        if set_again:
            sampler.set_epoch(7)
        assert torch.equal(torch.cat(list(second)), torch.cat(expected))
        assert second.stats()["epochs"][0]["epoch"] == 7
    second.load_state_dict(state)
    sampler.set_epoch(0)
    with pytest.raises(coordl.StateError, match=r"in epoch 7 .* set to 0"):
        iter(second)


def test_counted_epochs_go_on_from_the_state() -> None:
    loader = coordl.DataLoader(Recording(), 4, seed=3)
    epochs = [list(loader) for _ in range(4)]
    loader = coordl.DataLoader(Recording(), 4, seed=3)
    list(loader)
    for taken in (0, 3, 10):  # at the begin, in the middle, after the last but before the end
        given, state, _ = halves(loader, taken)
        second = coordl.DataLoader(Recording(), 4, seed=3)
        second.load_state_dict(state)
        rest = list(second)
        assert torch.equal(torch.cat(given + rest), torch.cat(epochs[1]))
        assert torch.equal(torch.cat(list(second)), torch.cat(epochs[2]))
        loader = coordl.DataLoader(Recording(), 4, seed=3)
        list(loader)
    ended = second.state_dict()
    third = coordl.DataLoader(Recording(), 4, seed=3)
    third.load_state_dict(ended)
    assert torch.equal(torch.cat(list(third)), torch.cat(epochs[3]))


# -- what cannot be -------------------------------------------------------------------------------


class Unrepeatable(torch.utils.data.Sampler):
    def __iter__(self) -> Any:
        return iter(random.sample(range(40), 40))

    def __len__(self) -> int:
        return 40


def test_an_order_that_does_not_repeat_is_told_not_gone_on_with() -> None:
    random.seed(1)
    _, state, _ = halves(coordl.DataLoader(Plain(), 4, sampler=Unrepeatable()), 3)
    second = coordl.DataLoader(Plain(), 4, sampler=Unrepeatable())
    second.load_state_dict(state)
    with pytest.raises(coordl.StateError, match="Unrepeatable does not repeat the order"):
        list(second)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 2}, "seed=1 and this loader has seed=2"),
        ({"dataset": Plain(41)}, "40 samples, and this one has 41"),
    ],
)
def test_what_would_not_be_exact_is_refused(change: dict[str, Any], said: str) -> None:
    _, state, _ = halves(coordl.DataLoader(Plain(), 4, seed=1), 3)
    second = coordl.DataLoader(**{"dataset": Plain(), "batch_size": 4, "seed": 1, **change})
    second.load_state_dict(state)
    with pytest.raises(coordl.StateError, match=said):
        list(second)


def test_a_state_of_others_is_refused() -> None:
    for state in ({"_snapshot": {}}, {"coordl": 99}):
        with pytest.raises(coordl.StateError, match="no state of a coordl"):
            coordl.DataLoader(Plain()).load_state_dict(state)


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="snapshot_every_n_steps"):
        coordl.DataLoader(Plain(), snapshot_every_n_steps=-1)
