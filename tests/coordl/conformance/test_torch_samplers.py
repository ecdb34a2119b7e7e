"""Samplers and batch samplers, torch's and the user's, on every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.data
from conformance_data import COUNT, Batched, Engine, indices, outcome, passing
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

import coordl
from coordl import transforms as T

pytestmark = pytest.mark.area("samplers")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


SAMPLERS: dict[str, Callable[[Any], Any]] = {
    "range": lambda data: range(2, 9),
    "list": lambda data: [5, 1, 1, -1],
    "tensor": lambda data: torch.tensor([4, 2, 0]),
    "sequential": SequentialSampler,
    "replacement": lambda data: RandomSampler(data, True, 20, generator()),
    "several passes": lambda data: RandomSampler(data, False, 30, generator()),
    "subset": lambda data: SubsetRandomSampler([1, 3, 5, 7], generator()),
    "weighted": lambda data: WeightedRandomSampler([1.0, 2.0, 3.0], 9, True, generator()),
    "rank 0": lambda data: DistributedSampler(data, 5, 0, seed=4),
    "rank 4": lambda data: DistributedSampler(data, 5, 4, seed=4),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_come_as_the_sampler_names_them(engine: Engine, name: str) -> None:
    seen = []
    for make in (engine.stock, engine.ours):
        loader = make(batch_size=4, sampler=SAMPLERS[name](engine.dataset))
        seen.append([indices(loader), indices(loader), len(loader)])
    assert seen[0] == seen[1]


@pytest.mark.area("distributed sampling")
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_rank_gets_torchs_indices_of_the_epoch(engine: Engine, drop_last: bool) -> None:
    for rank in range(5):
        seen = []
        for make in (engine.stock, engine.ours):
            sampler = DistributedSampler(engine.dataset, 5, rank, drop_last=drop_last)
            loader = make(batch_size=2, sampler=sampler)
            epochs = []
            for epoch in (0, 3):
                sampler.set_epoch(epoch)
                epochs.append(indices(loader))
            seen.append(epochs)
        assert seen[0] == seen[1]


BATCHES: dict[str, Callable[[], Any]] = {
    "tuples": lambda: [(0, 1), (2, 3, 4), (5,)],
    "lists of numbers of NumPy's and torch's": lambda: [list(torch.tensor([3, 1])), [2]],
    "tensors": lambda: list(torch.arange(9).split(4)),
    "sets": lambda: [{1, 2}, {7}],
    "batches of torch's": lambda: BatchSampler(SubsetRandomSampler(range(9), generator()), 4, True),
}


@pytest.mark.area("batch samplers")
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_sampler_decides_the_minibatches(engine: Engine, name: str) -> None:
    seen = []
    for make in (engine.stock, engine.ours):
        loader = make(batch_sampler=BATCHES[name]())
        assert loader.batch_size is None and loader.drop_last is False
        seen.append([indices(loader), len(loader)])
    assert seen[0] == seen[1]


@pytest.mark.area("batch samplers")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_minibatch_may_be_named_by_an_iterator(folder: Any, workers: int) -> None:
    wanted = [[1, 2], [0], [5, 4, 3]]
    for data in (folder, Batched(COUNT)):
        loader = coordl.DataLoader(
            data, batch_sampler=[_iterator(some) for some in wanted], num_workers=workers
        )
        assert indices(loader) == wanted


def _iterator(numbers: list[int]) -> Iterator[int]:
    yield from numbers


@pytest.mark.area("random transforms")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_named_twice_is_drawn_twice_unless_a_seed_keys_it(
    pictures: Path, workers: int
) -> None:
    steps = T.Compose([T.RandomResizedCrop(16), T.RandomHorizontalFlip(), T.PILToTensor()])
    data = coordl.ImageFolder(pictures, steps)
    for seed in (None, 3):
        torch.manual_seed(1)
        options: dict[str, Any] = {"sampler": [4] * 10, "num_workers": workers, "seed": seed}
        loader = coordl.DataLoader(data, 5, prep="native", **options)
        crops = torch.cat([images for images, _ in loader])
        different = len({crop.numpy().tobytes() for crop in crops})
        assert different == (1 if seed else 10)


@pytest.mark.area("batch samplers")
def test_a_data_set_may_take_batches_named_as_it_likes() -> None:
    class Slices(torch.utils.data.Dataset):
        def __getitems__(self, which: slice) -> list[int]:
            return list(range(which.start, which.stop))

    options: dict[str, Any] = {"batch_sampler": [slice(0, 3), slice(7, 9)]}
    ours = coordl.DataLoader(Slices(), **options)
    assert [batch.tolist() for batch in ours] == [[0, 1, 2], [7, 8]]


class Counting:
    """A sampler that knows how many indices were asked of it, and fails where it was told to."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked = 0
        self.fails_at = fails_at

    def __iter__(self) -> Iterator[int]:
        for index in range(COUNT):
            if index == self.fails_at:
                raise LookupError("the sampler's own")
            self.asked += 1
            yield index


@pytest.mark.area("order of samples, generators")
@pytest.mark.parametrize("ahead", [2, 3])
def test_a_sampler_is_asked_for_as_many_indices_as_torch_asks(engine: Engine, ahead: int) -> None:
    extra = {"prefetch_factor": ahead} if engine.workers else {}
    asked = []
    for make in (engine.stock, engine.ours):
        sampler = Counting()
        iterator = iter(make(batch_size=1, sampler=sampler, **extra))
        before = sampler.asked
        next(iterator)
        asked.append((before, sampler.asked))
        del iterator
    assert asked[0] == asked[1]


def test_a_samplers_error_is_raised_where_torch_raises_it(engine: Engine) -> None:
    seen = []
    for make in (engine.stock, engine.ours):
        got: list[Any] = []
        with passing(make(batch_size=1, sampler=Counting(fails_at=6))) as batches:
            with pytest.raises(LookupError, match="the sampler's own"):
                for batch in batches:
                    got += batch[1].tolist()
        seen.append(got)
    assert seen[0] == seen[1]


class Stumbles:
    """Names minibatches; fails once before each of those numbers, then goes on."""

    def __init__(self, at: Iterable[int]) -> None:
        self.at = at

    def __iter__(self) -> Stumbles:
        self.left, self.number = set(self.at), 0
        return self

    def __next__(self) -> list[int]:
        if self.number in self.left:
            self.left.discard(self.number)
            raise KeyError(self.number)
        if self.number == 9:
            raise StopIteration
        self.number += 1
        return [self.number, 10 - self.number]


@pytest.mark.parametrize("at", [[0], [4], [7, 8], [9]])
def test_who_goes_on_after_a_samplers_error_gets_what_comes_next(
    engine: Engine, at: list[int]
) -> None:
    def seen(make: Any) -> list[Any]:
        got: list[Any] = []
        with passing(make(batch_sampler=Stumbles(at))) as passed:
            while True:
                try:
                    got += indices([next(passed)])
                except StopIteration:
                    return got
                except KeyError as error:
                    got.append(repr(error))

    if engine.workers and min(at) < 2 * engine.workers:  # asked for when the pass begins
        for make in (engine.stock, engine.ours):
            with pytest.raises(KeyError, match=str(min(at))):
                iter(make(batch_sampler=Stumbles(at)))
    else:
        assert seen(engine.ours) == seen(engine.stock)


def test_a_sampler_without_a_length_gives_a_loader_without_one(engine: Engine) -> None:
    theirs = outcome(len, engine.stock(sampler=Counting(), batch_size=2))
    assert theirs is not None
    assert outcome(len, engine.ours(sampler=Counting(), batch_size=2)) == theirs


def test_a_sampler_that_ends_at_once_gives_no_minibatch(engine: Engine) -> None:
    assert list(engine.ours(sampler=[], batch_size=3)) == []


@pytest.mark.area("samplers")
def test_an_index_beyond_the_data_set_is_an_index_error(engine: Engine) -> None:
    for make in (engine.stock, engine.ours):
        with passing(make(batch_size=2, sampler=[0, 1, 99, 2, 3, 4])) as iterator:
            assert next(iterator)[1].tolist() == [0, 1]
            with pytest.raises(IndexError):
                next(iterator)
            assert next(iterator)[1].tolist() == [3, 4]
