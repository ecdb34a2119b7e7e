"""A loader as an object: assignment, subclasses, copies, pickles, rebuilding from attributes."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.utils.data
from conformance_data import COUNT, Engine, Numbers, indices, outcome, same
from torch.utils.data import BatchSampler, SequentialSampler

import coordl

pytestmark = pytest.mark.area("attributes")

FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")


@pytest.mark.parametrize("name", FIXED)
def test_what_torch_fixes_cannot_be_set(engine: Engine, name: str) -> None:
    theirs = outcome(setattr, engine.stock(), name, 1)
    assert outcome(setattr, engine.ours(), name, 1) == theirs is not None


def test_what_torch_lets_one_set_is_read_when_a_pass_begins() -> None:
    seen = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        loader = kind(Numbers(), 4)
        loader.collate_fn = lambda samples: [sample[1] for sample in samples]
        first = list(loader)
        loader.num_workers, loader.prefetch_factor = 1, 2
        loader.multiprocessing_context = "fork"
        seen.append([first, list(loader), loader.multiprocessing_context.get_start_method()])
        loader.timeout, loader.num_workers = 0, 0
        loader.generator = torch.Generator().manual_seed(1)
        seen[-1] += [list(loader), loader.generator.get_state().tolist()]
    assert seen[0] == seen[1]


def test_a_context_needs_workers_also_when_it_is_set_later() -> None:
    theirs, ours = (
        outcome(setattr, kind(Numbers()), "multiprocessing_context", "fork")
        for kind in (torch.utils.data.DataLoader, coordl.DataLoader)
    )
    assert ours == theirs is not None


class Doubled(coordl.DataLoader):
    """A subclass with arguments, attributes, a length and an iteration of its own."""

    def __init__(self, *args: Any, factor: int = 2, **kwargs: Any) -> None:
        self.factor = factor
        super().__init__(*args, **kwargs)
        self.note = "kept"

    def __len__(self) -> int:
        return super().__len__() * self.factor

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.factor):
            yield from super().__iter__()


@pytest.mark.area("subclasses, copies, pickles")
def test_a_subclass_is_free_to_change_it(engine: Engine) -> None:
    loader = Doubled(engine.dataset, 5, **engine.options, **engine.ours_only)
    assert len(loader) == 6 == len(list(loader))
    expected = list(engine.stock(batch_size=5))
    assert same(list(loader), expected + expected) and loader.note == "kept"


@pytest.mark.area("subclasses, copies, pickles")
@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle"])
def test_copies_load_the_same_and_share_no_state(engine: Engine, way: str) -> None:
    loader = engine.ours(batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(5))
    list(loader)
    ways = {"copy": copy.copy, "deepcopy": copy.deepcopy}
    ways["pickle"] = lambda one: pickle.loads(pickle.dumps(one))
    other = ways[way](loader)
    assert type(other) is type(loader)
    assert other.batch_size == 5 and other.num_workers == loader.num_workers
    if way == "copy":  # samplers and generator are shared, as with torch
        assert sorted(itertools.chain(*indices(other))) == list(range(COUNT))
    else:
        assert indices(other) == indices(loader)


@pytest.mark.area("subclasses, copies, pickles")
def test_a_loader_with_a_live_persistent_iterator_is_no_more_picklable_than_torchs(
    engine: Engine,
) -> None:
    if not engine.workers:
        pytest.skip("persistent_workers needs workers")
    results = []
    for make in (engine.stock, engine.ours):
        loader = make(persistent_workers=True)
        next(iter(loader))
        results.append(outcome(pickle.dumps, loader) is None)
    assert results[0] == results[1]


def attributes_of(loader: Any) -> dict[str, Any]:
    """Every argument of the loader's constructor, found among its attributes, as frameworks do."""
    names = [n for n in inspect.signature(type(loader).__init__).parameters if n != "self"]
    return {name: getattr(loader, name) for name in names if hasattr(loader, name)}


@pytest.mark.area("rebuilding by frameworks")
def test_all_arguments_but_shuffle_are_attributes(engine: Engine) -> None:
    names = set(inspect.signature(coordl.DataLoader.__init__).parameters) - {"self", "shuffle"}
    assert attributes_of(engine.ours()).keys() == names


@pytest.mark.area("rebuilding by frameworks")
@pytest.mark.parametrize("batches", [True, False])
def test_a_loader_rebuilt_with_another_sampler_stays_on_its_engine(
    engine: Engine, batches: bool
) -> None:
    """As Lightning does: the same class from its attributes, the sampler replaced."""
    loader = engine.ours(batch_size=4)
    given = attributes_of(loader)
    chosen = SequentialSampler(range(3, 9))
    if batches:
        given |= {"batch_sampler": BatchSampler(chosen, 4, True), "sampler": None}
        given |= {"batch_size": 1, "drop_last": False}
    else:
        given |= {"sampler": chosen, "batch_sampler": None}
    rebuilt = type(loader)(**given)
    assert indices(rebuilt) == [[0, 1, 2, 3]] + ([] if batches else [[4, 5]])
    assert rebuilt.plan().splitlines()[2:] == loader.plan().splitlines()[2:]


@pytest.mark.area("rebuilding by frameworks")
def test_a_plain_torch_loader_built_from_its_attributes_gives_the_same(engine: Engine) -> None:
    """As Accelerate does: torch's class from those attributes torch has."""
    loader = engine.ours(batch_size=4)
    theirs = inspect.signature(torch.utils.data.DataLoader.__init__).parameters
    given = {name: value for name, value in attributes_of(loader).items() if name in theirs}
    given |= {"sampler": None, "batch_size": 1}
    assert indices(torch.utils.data.DataLoader(**given)) == indices(loader)


class Repeating:
    """A batch sampler without an end, as loaders that keep one iterator for all epochs use."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from iter(self.sampler)


class OneIterator(coordl.DataLoader):
    """As timm's and Ultralytics' loaders: one endless iterator serves every epoch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "batch_sampler", Repeating(self.batch_sampler))
        self.iterator = super().__iter__()

    def __len__(self) -> int:
        return len(self.batch_sampler.sampler)  # type: ignore[union-attr]

    def __iter__(self) -> Iterator[Any]:
        for _ in range(len(self)):
            yield next(self.iterator)


@pytest.mark.area("rebuilding by frameworks")
def test_an_iterator_kept_for_all_epochs_serves_them(engine: Engine) -> None:
    loader = OneIterator(engine.dataset, 5, **engine.options, **engine.ours_only)
    expected = list(engine.stock(batch_size=5))
    assert len(loader) == 3
    for _ in range(3):
        assert same(list(loader), expected)


class Keyed(coordl.DataLoader):
    """A subclass that sets attributes of our names before it is a loader."""

    def __init__(self, *args: Any, seed: int, passed: bool) -> None:
        self.seed, self.note = seed, "kept"
        super().__init__(*args, **({"seed": seed} if passed else {}))


def test_an_attribute_of_a_subclass_is_not_lost_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = Keyed(Numbers(), seed=1000, passed=True)
    assert (loader.seed, loader.note) == (1000, "kept")
    with pytest.warns(UserWarning, match=r"Keyed sets seed before super") as caught:
        assert Keyed(Numbers(), seed=1000, passed=False).seed is None
    assert caught[0].filename == __file__
