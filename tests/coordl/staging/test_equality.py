"""Minibatches through slots are those of torch's DataLoader in everything a user sees."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import staged_data as data
import torch
from same import assert_same

import coordl

METHODS = ["fork", "spawn", "forkserver"]


def both(dataset: Any, batch_size: int | None = 4, **more: Any) -> tuple[list, list, dict]:
    """All minibatches of ours and of torch's, and how ours came."""
    loader = coordl.DataLoader(dataset, batch_size, **more)
    ours = list(loader)
    return ours, list(torch.utils.data.DataLoader(dataset, batch_size, **more)), loader.stats()


@pytest.mark.parametrize("kind", data.STRUCTURES)
def test_every_structure_of_default_collate_comes_as_torch_gives_it(
    kind: str, nothing_left: None
) -> None:
    ours, theirs, stats = both(data.Structures(kind), num_workers=2)
    assert_same(ours, theirs)
    expected = len(ours) if kind in ("empty", "subclass") else 0
    assert stats["staging"]["as_torch"] == expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same(workers: int, nothing_left: None) -> None:
    ours, theirs, _ = both(data.Structures("dict"), num_workers=workers)
    assert_same(ours, theirs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("persistent", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_start_method_stages(method: str, persistent: bool) -> None:
    loader = coordl.DataLoader(
        data.Structures("tuple"),
        4,
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=persistent,
    )
    expected = list(torch.utils.data.DataLoader(data.Structures("tuple"), 4))
    for _ in range(2):
        assert_same(list(loader), expected)
    staging = loader.stats()["staging"]
    assert staging["staged"] == 2 * len(expected) and staging["as_torch"] == 0
    assert staging["why"] == ""


def test_getitems_gets_the_plain_list(nothing_left: None) -> None:
    ours, theirs, _ = both(data.Many("tuple"), num_workers=2)
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    "collate",
    [data.list_of_samples, data.boxed, data.with_views, data.sparse, data.with_numpy],
)
def test_what_a_collate_function_returns_comes_as_torch_gives_it(
    collate: Any, nothing_left: None
) -> None:
    ours, theirs, _ = both(data.Structures("tuple"), num_workers=2, collate_fn=collate)
    assert_same(ours, theirs)


def test_two_tensors_over_one_storage_stay_so(nothing_left: None) -> None:
    loader = coordl.DataLoader(
        data.Structures("tuple"), 4, num_workers=1, collate_fn=data.with_views
    )
    for images, rest, again, _ in loader:
        assert images is again
        if len(rest):
            rest[0].fill_(-5)
            assert (images[1] == -5).all()


def test_a_collate_function_may_keep_what_it_returned(nothing_left: None) -> None:
    loader = coordl.DataLoader(
        data.Structures("tuple"), 4, num_workers=1, collate_fn=data.Remembering()
    )
    plain = [images for images, _ in torch.utils.data.DataLoader(data.Structures("tuple"), 4)]
    for number, (now, last) in enumerate(loader):
        assert torch.equal(now, plain[number])
        assert torch.equal(last, plain[max(0, number - 1)])


@pytest.mark.parametrize("persistent", [False, True])
def test_streams_that_end_apart_come_as_torch_gives_them(
    persistent: bool, nothing_left: None
) -> None:
    more: dict[str, Any] = {"num_workers": 3, "persistent_workers": persistent}
    loader = coordl.DataLoader(data.Stream(), 4, **more)
    theirs = list(torch.utils.data.DataLoader(data.Stream(), 4, **more))
    for _ in range(3):
        assert_same(list(loader), theirs)
    staging = loader.stats()["staging"]
    assert staging["staged"] == 3 * len(theirs) and staging["once"] == 0
    del loader


def test_samples_without_collation_of_many_sizes(nothing_left: None) -> None:
    ours, theirs, stats = both(data.Growing(), None, num_workers=2)
    assert_same(ours, theirs)
    assert stats["staging"]["as_torch"] == 2  # the empty ones


def test_workers_errors_are_torchs(nothing_left: None) -> None:
    messages = []
    for kind in (coordl.DataLoader, torch.utils.data.DataLoader):
        iterator = iter(kind(data.Failing("tuple"), 4, num_workers=2))
        next(iterator)
        next(iterator)
        with pytest.raises(ValueError, match="sample 9 is bad") as caught:
            next(iterator)
        assert len(next(iterator)[1]) == 4  # and it goes on
        messages.append(str(caught.value).splitlines()[0])
        del iterator, caught
    assert messages[0] == messages[1]


def test_ragged_samples_are_refused_as_torch_refuses_them(nothing_left: None) -> None:
    messages = []
    for kind in (coordl.DataLoader, torch.utils.data.DataLoader):
        with pytest.raises(RuntimeError) as caught:
            list(kind(data.Growing(), 4, num_workers=1))
        messages.append(str(caught.value).splitlines()[-1])
        del caught
    assert messages[0] == messages[1]


def test_what_cannot_be_pickled_is_an_error_not_a_wait(nothing_left: None) -> None:
    loader = coordl.DataLoader(
        data.Structures("tuple"), 4, num_workers=1, collate_fn=data.not_to_be_pickled, timeout=60
    )
    with pytest.raises(Exception, match="pickle"):
        list(loader)


def test_keyed_draws_come_through_slots(nothing_left: None) -> None:
    expected = list(coordl.DataLoader(data.Structures("tuple"), 4, seed=3))
    assert_same(
        list(coordl.DataLoader(data.Structures("tuple"), 4, seed=3, num_workers=2)), expected
    )


def test_order_need_not_be_kept(nothing_left: None) -> None:
    loader = coordl.DataLoader(data.Structures("tuple"), 4, num_workers=2, in_order=False)
    seen = sorted(int(label) for _, labels in loader for label in labels)
    assert seen == list(range(data.SAMPLES))


def test_a_registered_collate_function_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = torch.utils.data._utils.collate.default_collate_fn_map

    def doubled(batch: list, *, collate_fn_map: Any = None) -> torch.Tensor:
        return torch.stack(batch) * 2

    monkeypatch.setitem(functions, torch.Tensor, doubled)
    ours, theirs, _ = both(data.Structures("tuple"), num_workers=1)
    assert_same(ours, theirs)


def test_a_partial_of_default_collate_is_the_users_own(nothing_left: None) -> None:
    collate = functools.partial(torch.utils.data.default_collate)
    ours, theirs, _ = both(data.Structures("tuple"), num_workers=1, collate_fn=collate)
    assert_same(ours, theirs)
