"""Passes over map-style data sets: torch's minibatches in torch's order, on every engine."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
import torch.utils.data
from conformance_data import COUNT, Engine, Numbers, indices, same
from torch.utils.data import Subset

import coordl

pytestmark = pytest.mark.area("map-style data sets")


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 4}, {"batch_size": 5}, {"batch_size": 5, "drop_last": True}],
    ids=str,
)
def test_minibatches_are_torchs_in_every_epoch(engine: Engine, options: dict[str, Any]) -> None:
    ours, stock = engine.ours(**options), engine.stock(**options)
    assert len(ours) == len(stock)
    expected = list(stock)
    assert same(list(ours), expected)
    assert same(list(ours), expected)


@pytest.mark.area("order of samples, generators")
def test_shuffling_takes_torchs_order_and_leaves_the_generator_where_torch_does(
    engine: Engine,
) -> None:
    seen = []
    for make in (engine.stock, engine.ours):
        generator = torch.Generator().manual_seed(7)
        loader = make(batch_size=5, shuffle=True, generator=generator)
        seen.append([indices(loader), indices(loader), generator.get_state().tolist()])
    assert seen[0] == seen[1]


@pytest.mark.area("order of samples, generators")
def test_without_a_generator_torchs_global_one_is_used_as_torch_uses_it(engine: Engine) -> None:
    seen = []
    for make in (engine.stock, engine.ours):
        torch.manual_seed(11)
        loader = make(batch_size=5, shuffle=True)
        seen.append([indices(loader), indices(loader), torch.get_rng_state().tolist()])
    assert seen[0] == seen[1]


@pytest.mark.area("iterators")
def test_an_iterator_is_its_own_and_stays_exhausted(engine: Engine) -> None:
    iterator = iter(engine.ours(batch_size=5))
    assert iter(iterator) is iterator and len(iterator) == 3
    assert indices(iterator) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)


@pytest.mark.area("iterators")
def test_passes_left_early_and_passes_side_by_side_disturb_no_other(engine: Engine) -> None:
    loader = engine.ours(batch_size=2)
    left = iter(loader)
    next(left)
    pairs = list(zip(loader, loader, strict=True))
    assert len(pairs) == 6 and all(same(one, other) for one, other in pairs)
    assert next(left)[1].tolist() == [2, 3]


@pytest.mark.area("iterators")
def test_an_iterator_cannot_be_pickled_as_torchs_cannot(engine: Engine) -> None:
    for loader in (engine.ours(), engine.stock()):
        with pytest.raises(NotImplementedError):
            iter(loader).__getstate__()


@pytest.mark.area("life of a batch")
def test_kept_batches_stay_as_they_were_and_may_be_written_into(engine: Engine) -> None:
    loader = engine.ours(batch_size=3)
    kept = list(loader)
    copies = [batch[0].clone() for batch in kept]
    kept[0][0].fill_(9)
    list(loader)
    assert all(map(torch.equal, [batch[0] for batch in kept[1:]], copies[1:]))
    assert bool((kept[0][0] == 9).all())


def test_a_data_set_that_grows_is_read_to_its_new_end() -> None:
    data = [torch.ones(2)] * 4
    loaders = [coordl.DataLoader(data), coordl.DataLoader(data, shuffle=True)]
    data.append(torch.ones(2))
    assert [len(loader) for loader in loaders] == [5, 5]
    assert [len(list(loader)) for loader in loaders] == [5, 5]


@pytest.mark.parametrize(
    "data",
    [
        [1, 2, 3],
        range(5),
        torch.arange(6).reshape(3, 2),
        torch.utils.data.TensorDataset(torch.arange(4), torch.arange(4.0)),
        Numbers(3) + Numbers(2),
        torch.utils.data.StackDataset(a=Numbers(3), b=Numbers(3)),
        Subset(Subset(Numbers(), [4, 3, 2]), [2, 0]),
        [],
    ],
    ids=lambda data: type(data).__name__,
)
def test_whatever_has_a_length_and_items_is_a_data_set(data: Any) -> None:
    for options in ({}, {"batch_size": 2}, {"batch_size": None}):
        ours, stock = (
            coordl.DataLoader(data, **options),
            torch.utils.data.DataLoader(data, **options),
        )
        assert same(list(ours), list(stock)) and len(ours) == len(stock)


def test_keys_may_be_anything_the_data_set_takes() -> None:
    data = {"a": torch.ones(1), "b": torch.zeros(1), ("c", 1): torch.full((1,), 2.0)}
    for keys in (["b", "a"], [("c", 1), "b"]):
        options = {"sampler": keys, "batch_size": 2}
        ours, stock = (
            coordl.DataLoader(data, **options),
            torch.utils.data.DataLoader(data, **options),
        )
        assert same(list(ours), list(stock))


@pytest.mark.parametrize("chosen", [["b", "a"], [("c", 1)], torch.tensor([0, 2]), [0.0, 1.0]])
def test_a_subset_may_choose_by_anything_its_data_set_takes(chosen: Any) -> None:
    data = {"a": 1, "b": 2, ("c", 1): 3, 0: 4, 2: 5, 1: 6}

    class Dictionary(torch.utils.data.Dataset):
        def __getitem__(self, key: Any) -> int:
            return data[key.item() if isinstance(key, torch.Tensor) else key]

    subset = Subset(Dictionary(), chosen)
    assert same(list(coordl.DataLoader(subset)), list(torch.utils.data.DataLoader(subset)))


@pytest.mark.parametrize("chosen", [[3, 1, -1], range(2, 9, 3), torch.tensor([5, 0]), [True, 4]])
def test_a_subset_of_pictures_takes_any_integers(folder: coordl.ImageFolder, chosen: Any) -> None:
    subset = Subset(folder, chosen)
    ours = coordl.DataLoader(subset, batch_size=2, prep="native")
    assert same(list(ours), list(torch.utils.data.DataLoader(subset, batch_size=2)))


def test_endless_iteration_over_one_loader_begins_anew(engine: Engine) -> None:
    loader = engine.ours(batch_size=6)
    repeated = itertools.chain.from_iterable(itertools.repeat(loader))
    assert indices(itertools.islice(repeated, 5)) == [
        list(range(6)),
        list(range(6, COUNT)),
        list(range(6)),
        list(range(6, COUNT)),
        list(range(6)),
    ]


def test_no_pass_warns_of_anything(engine: Engine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(engine.ours(batch_size=4))
