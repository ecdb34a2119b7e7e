"""Stateful data sets, iterators and samplers: torchdata's protocol, its words, its semantics."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.data
from stateful_parts import (
    CountingSampler,
    Drawing,
    EpochSampler,
    Generating,
    ItsOwnIterator,
    OfStatefulIterators,
    Switching,
    WithoutState,
    YieldedSampler,
    identity,
)

import coordl

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

SIZES = [0, 100, 37]
ITERABLES: dict[str, Callable[[], Any]] = {
    "stateful iterators": lambda: OfStatefulIterators(SIZES),
    "its own iterator": lambda: ItsOwnIterator(60),
    "stateful": lambda: Generating(SIZES),
    "without state": lambda: WithoutState(SIZES),
}


def loader(dataset: Any, workers: int, **more: Any) -> coordl.DataLoader:
    return coordl.DataLoader(dataset, num_workers=workers, collate_fn=identity, **more)


def some(iterator: Any, count: int) -> list[Any]:
    return list(itertools.islice(iterator, count))


@pytest.mark.parametrize("kind", ITERABLES)
@pytest.mark.parametrize(
    ("workers", "more"),
    [
        (0, {}),
        (0, {"batch_size": None}),
        (3, {}),
        (3, {"batch_size": None, "persistent_workers": True}),
        (3, {"batch_size": 7, "drop_last": True}),
        (3, {"snapshot_every_n_steps": 5, "prefetch_factor": 1}),
        (3, {"snapshot_every_n_steps": 0, "persistent_workers": True}),
    ],
)
@pytest.mark.parametrize("interrupt", [1, 10])
def test_an_iterable_data_set_goes_on_where_it_was(
    kind: str, workers: int, more: dict[str, Any], interrupt: int
) -> None:
    first = loader(ITERABLES[kind](), workers, **more)
    iterator = iter(first)
    some(iterator, interrupt)
    state = first.state_dict()
    expected = list(iterator)
    second = loader(ITERABLES[kind](), workers, **more)
    second.load_state_dict(state)
    assert list(second) == expected


@pytest.mark.parametrize("kind", ITERABLES)
def test_a_worker_that_ended_stays_ended(kind: str) -> None:
    first = loader(ITERABLES[kind](), 3, batch_size=10)
    iterator = iter(first)
    some(iterator, 9)  # the worker with 37 numbers has given all
    state = first.state_dict()
    expected = list(iterator)
    second = loader(ITERABLES[kind](), 3, batch_size=10)
    second.load_state_dict(state)
    assert list(second) == expected


@pytest.mark.parametrize(
    ("sampler", "workers", "more"),
    [
        *itertools.product(
            ["iterator", "sampler", "epoch"],
            [0, 3],
            [{}, {"snapshot_every_n_steps": 5, "batch_size": 7}],
        ),
        *itertools.product(
            ["random"],
            [3],
            [
                {"batch_size": 7, "persistent_workers": True},
                {"batch_size": None},
                {"snapshot_every_n_steps": 2},
                {"snapshot_every_n_steps": 10},
                {"snapshot_every_n_steps": 0},
            ],
        ),
        ("shuffle", 0, {}),
        ("shuffle", 3, {}),
    ],
)
@pytest.mark.parametrize("interrupt", [0, 1, 11])
def test_a_stateful_data_set_with_an_index_goes_on_where_it_was(
    sampler: str, workers: int, more: dict[str, Any], interrupt: int
) -> None:
    def fresh() -> coordl.DataLoader:
        data = Drawing(100)
        made: dict[str, Any] = {
            "random": lambda: {
                "sampler": torch.utils.data.RandomSampler(
                    data, generator=torch.Generator().manual_seed(13)
                )
            },
            "iterator": lambda: {"sampler": CountingSampler(100)},
            "sampler": lambda: {"sampler": YieldedSampler(100)},
            "epoch": lambda: {"sampler": EpochSampler(100)},
            "shuffle": lambda: {"shuffle": True},
        }
        return loader(data, workers, **more, **made[sampler]())

    first = fresh()
    iterator = iter(first)
    some(iterator, interrupt)
    state = first.state_dict()
    expected = list(iterator)
    torch.manual_seed(99)
    second = fresh()
    second.load_state_dict(state)
    assert list(second) == expected


@pytest.mark.parametrize(
    ("workers", "kept", "every"), [(0, False, 1), (0, False, 10), (3, False, 1), (3, True, 10)]
)
def test_an_epoch_can_be_had_again_from_its_begin(workers: int, kept: bool, every: int) -> None:
    more: dict[str, Any] = {"persistent_workers": kept}
    for data, order in (
        (Generating(SIZES), {}),
        (OfStatefulIterators(SIZES), {}),
        (Drawing(40), {}),
        (Drawing(40), {"shuffle": True}),
    ):
        one = loader(data, workers, snapshot_every_n_steps=every, **more, **order)
        iterator = iter(one)
        state = one.state_dict()
        expected = some(iterator, 4)
        middle = one.state_dict()
        one.load_state_dict(middle)
        expected += list(one)
        one.load_state_dict(state)
        assert list(one) == expected


@pytest.mark.parametrize(
    ("workers", "kept", "size", "every"),
    [(0, False, 4, 1), (3, False, None, 1), (3, True, None, 1), (3, True, 4, 10)],
)
def test_after_an_epochs_end_the_next_one_begins(
    workers: int, kept: bool, size: int | None, every: int
) -> None:
    def fresh(which: int) -> coordl.DataLoader:
        more: dict[str, Any] = {"persistent_workers": kept, "batch_size": size}
        more["snapshot_every_n_steps"] = every
        generator = torch.Generator().manual_seed(4)
        return [
            lambda: loader(Generating(SIZES), workers, **more),
            lambda: loader(WithoutState(SIZES), workers, **more),
            lambda: loader(OfStatefulIterators(SIZES), workers, generator=generator, **more),
            lambda: loader(Drawing(40), workers, generator=generator, **more),
            lambda: loader(Drawing(40, draws=False), workers, shuffle=True, **more),
            lambda: loader(Drawing(40), workers, shuffle=True, generator=generator, **more),
            lambda: loader(Drawing(40, draws=False), workers, sampler=YieldedSampler(40), **more),
            lambda: loader(Drawing(40, draws=False), workers, sampler=CountingSampler(40), **more),
            lambda: loader(Drawing(40, draws=False), workers, sampler=EpochSampler(40), **more),
        ][which]()

    for which in range(9):
        torch.manual_seed(1)
        one = fresh(which)
        list(one)
        state = one.state_dict()
        expected = [list(one), list(one)]
        two = fresh(which)
        some(iter(two), 2)
        two.load_state_dict(state)
        assert [list(two), list(two)] == expected, which


def test_the_last_minibatch_is_no_end_yet() -> None:
    for workers, shuffle in itertools.product((0, 2), (False, True)):
        one = loader(Drawing(20, draws=False), workers, shuffle=shuffle)
        for _ in one:
            inside = one.state_dict()
        outside = one.state_dict()
        for state, count in ((inside, 0), (outside, 20)):
            two = loader(Drawing(20, draws=False), workers, shuffle=shuffle)
            two.load_state_dict(state)
            assert len(list(two)) == count


def test_epochs_go_on_from_torchs_global_generator() -> None:
    for workers, shuffle in itertools.product((0, 2), (False, True)):
        torch.manual_seed(0)
        one = loader(Drawing(50, draws=False), workers, shuffle=shuffle)
        got = [list(one), list(one)]
        state = one.state_dict()
        two = loader(Drawing(50, draws=False), workers, shuffle=shuffle)
        two.load_state_dict(state)
        got += [list(two), list(two)]
        torch.manual_seed(0)
        three = loader(Drawing(50, draws=False), workers, shuffle=shuffle)
        assert got == [list(three) for _ in range(4)]


def test_persistent_workers_keep_their_data_sets_across_a_resume() -> None:
    one = loader(Generating([25, 50, 100, 75]), 4, persistent_workers=True)
    list(one)
    state = one.state_dict()
    expected = [list(one), list(one)]
    assert {sample[1] for batch in expected[1] for sample in batch} == {2}
    two = loader(Generating([25, 50, 100, 75]), 4, persistent_workers=True)
    some(iter(two), 2)
    two.load_state_dict(state)
    assert [list(two), list(two)] == expected


def test_a_state_before_the_first_iterator() -> None:
    for kept in (False, True):
        one = loader(Drawing(100), 4, persistent_workers=kept)
        state = one.state_dict()
        assert len(state["_snapshot"]["_worker_snapshots"]) == 4
        expected = list(one)
        some(iter(one), 3)
        one.load_state_dict(state)
        assert _same(one.state_dict(), state)
        assert list(one) == expected
        two = loader(Drawing(100), 4, persistent_workers=kept)
        two.state_dict()
        two.load_state_dict(state)
        assert _same(two.state_dict(), state)
        assert list(two) == expected


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    return bool(left == right)


@pytest.mark.parametrize(("every", "interrupt"), [(1, 15), (17, 19), (0, 11)])
def test_states_of_a_resumed_pass_are_those_of_the_whole_one(every: int, interrupt: int) -> None:
    def fresh() -> coordl.DataLoader:
        return loader(Switching(), 4, persistent_workers=True, snapshot_every_n_steps=every)

    one = fresh()
    iterator = iter(one)
    some(iterator, interrupt)
    state = one.state_dict()
    untouched = copy.deepcopy(state)
    some(iterator, 2)
    later = one.state_dict()
    assert state == untouched
    expected = list(iterator)
    one.load_state_dict(state)
    some(iter(one), 2)
    for resumed in (one.state_dict(), later):
        two = fresh()
        two.load_state_dict(resumed)
        assert list(two) == expected
    three = fresh()
    three.load_state_dict(state)
    iterator = iter(three)
    some(iterator, 2)
    assert three.state_dict() == later


@pytest.mark.parametrize("workers", [0, 3])
def test_states_of_what_json_can_say_are_json(workers: int) -> None:
    for data, order in (
        (OfStatefulIterators(SIZES, draws=False), None),
        (Drawing(100, draws=False), CountingSampler(100)),
        (Drawing(100, draws=False), YieldedSampler(100)),
    ):
        one = loader(data, workers, sampler=order)
        iterator = iter(one)
        some(iterator, 4)
        text = json.dumps(one.state_dict())
        expected = list(iterator)
        two = loader(data, workers, sampler=order)
        two.load_state_dict(json.loads(text))
        assert list(two) == expected


def test_states_are_where_torchdata_has_them() -> None:
    one = loader(ItsOwnIterator(100), 2)
    some(iter(one), 3)
    for worker in one.state_dict()["_snapshot"]["_worker_snapshots"].values():
        assert worker["dataset_state"] is None  # it is its iterator, whose state is there
        assert worker["fetcher_state"]["dataset_iter_state"]
    one = loader(ItsOwnIterator(100), 0)
    some(iter(one), 3)
    assert one.state_dict()["dataset_state"] is None
    assert one.state_dict()["fetcher_state"]["dataset_iter_state"]["nested"]["i"] == 3


class CountsIters(torch.utils.data.IterableDataset):
    def __init__(self) -> None:
        self.iters = 0

    def __iter__(self) -> Any:
        self.iters += 1
        return iter(range(10))

    def state_dict(self) -> dict[str, int]:
        return {"iters": self.iters}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


@pytest.mark.parametrize(("workers", "expected"), [(0, [1, 2]), (2, [1, 1])])
def test_data_sets_are_iterated_once_for_a_pass(workers: int, expected: list[int]) -> None:
    data, state = CountsIters(), {}
    for count in expected:
        one = loader(data, workers)
        one.load_state_dict(state)
        iterator = iter(one)
        state = one.state_dict()
        del iterator
        told = [state] if workers == 0 else state["_snapshot"]["_worker_snapshots"].values()
        assert [part["dataset_state"]["iters"] for part in told] == [count] * max(1, workers)


def test_another_number_of_workers_is_refused_for_what_is_kept_by_worker() -> None:
    for before, after in ((0, 3), (3, 0)):
        for data in (Drawing(30), Generating([10, 10, 10]), WithoutState([10, 10, 10])):
            one = loader(data, before)
            iterator = iter(one)
            state = one.state_dict()
            del iterator
            two = loader(data, after)
            two.load_state_dict(state)
            for _ in range(2):  # it stays so
                with pytest.raises(coordl.StateError, match=f"num_workers={before}") as caught:
                    iter(two)
            assert isinstance(caught.value, AssertionError)


def fail(worker: int) -> None:
    raise ValueError("no such worker")


class Failing(Drawing):
    def __getitem__(self, index: int) -> Any:
        raise ValueError("no such sample")


def test_what_fails_at_the_start_fails_in_iter_and_a_sample_in_its_place() -> None:
    with pytest.raises(ValueError, match="no such worker"):
        iter(loader(Drawing(10), 2, worker_init_fn=fail))
    iterator = iter(loader(Failing(10), 2))
    with pytest.raises(ValueError, match="no such sample"):
        next(iterator)


@pytest.mark.parametrize(
    ("context", "data"), [("spawn", Generating([6])), ("forkserver", Drawing(6))]
)
def test_workers_of_any_start_method_keep_states(context: str, data: Any) -> None:
    one = loader(data, 1, multiprocessing_context=context)
    iterator = iter(one)
    some(iterator, 3)
    state = one.state_dict()
    expected = list(iterator)
    two = loader(data, 1, multiprocessing_context=context)
    two.load_state_dict(state)
    assert list(two) == expected


class SlowFirst(torch.utils.data.Dataset):
    """Sample 0 is made when 1, 3 and 5 were taken by the consumer."""

    def __init__(self, go: Any) -> None:
        self.go = go

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        if index == 0:
            self.go.wait()
        return index


def test_minibatches_that_came_out_of_order_are_not_given_again() -> None:
    go = torch.multiprocessing.get_context("fork").Event()
    one = loader(SlowFirst(go), 2, in_order=False)
    iterator = iter(one)
    got = some(iterator, 3)
    state = one.state_dict()
    assert [0] not in got and state["ahead"]
    go.set()
    del iterator
    two = loader(SlowFirst(go), 2, in_order=False)
    two.load_state_dict(state)
    got += list(two)
    assert sorted(got) == [[number] for number in range(10)]
    in_order = loader(SlowFirst(go), 0)
    in_order.load_state_dict(state)
    assert sorted(got[:3] + list(in_order)) == [[number] for number in range(10)]


def test_a_stock_loader_beside_ours_is_as_ever() -> None:
    data = Drawing(20, draws=False)
    stock = torch.utils.data.DataLoader(data, num_workers=2, collate_fn=identity)
    assert list(loader(data, 2)) == list(stock)
