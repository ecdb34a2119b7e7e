"""The rest of an epoch of torch's DistributedSampler, for as many ranks as there are now."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
import torch.utils.data
from torch.utils.data.distributed import DistributedSampler

import coordl


class Numbers(torch.utils.data.Dataset):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def of_rank(size: int, ranks: int, rank: int, batch: int | None = 4, **more: Any) -> Any:
    data = Numbers(size)
    sampler = DistributedSampler(data, ranks, rank, seed=3, **more)
    sampler.set_epoch(2)
    return coordl.DataLoader(data, batch, sampler=sampler)


def numbers(batches: Any) -> list[int]:
    return [int(one) for batch in batches for one in torch.as_tensor(batch).flatten()]


def taken(loader: Any, minibatches: int) -> tuple[list[int], dict[str, Any]]:
    got = numbers(itertools.islice(iter(loader), minibatches))
    return got, json.loads(json.dumps(loader.state_dict()))


@pytest.mark.parametrize("size", [40, 41, 53])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_with_as_many_ranks_each_goes_on_as_if_nothing_was(
    size: int, drop_last: bool, ranks: int
) -> None:
    for rank in range(ranks):
        whole = numbers(of_rank(size, ranks, rank, drop_last=drop_last))
        got, state = taken(of_rank(size, ranks, rank, drop_last=drop_last), 2)
        second = of_rank(size, ranks, rank, drop_last=drop_last)
        second.load_state_dict(state)
        assert got + numbers(second) == whole


@pytest.mark.parametrize("size", [40, 41, 53])
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (1, 4), (4, 1)])
@pytest.mark.parametrize("batch", [4, None])
def test_other_ranks_share_exactly_what_was_not_consumed(
    size: int, before: int, after: int, batch: int | None
) -> None:
    steps = 2 if batch else 7
    parts = [taken(of_rank(size, before, rank, batch), steps) for rank in range(before)]
    consumed = [number for got, _ in parts for number in got]
    assert len(set(consumed)) == len(consumed)
    state = parts[-1][1]  # any rank's will do
    rest, lengths = [], set()
    for rank in range(after):
        loader = of_rank(size, after, rank, 3 if batch else None)
        loader.load_state_dict(state)
        mine = numbers(loader)
        lengths.add(len(mine))
        rest.append(mine)
    assert len(lengths) == 1
    in_turn = [number for turn in zip(*rest, strict=True) for number in turn]
    left = size - len(consumed)
    assert sorted(consumed + in_turn[:left]) == list(range(size))
    assert len(in_turn) - left < after  # torch's padding, and no more


def test_drop_last_leaves_out_less_than_one_turn() -> None:
    got = [taken(of_rank(50, 2, rank, drop_last=True), 3) for rank in range(2)]
    consumed = [number for part, _ in got for number in part]
    rest = []
    for rank in range(4):
        loader = of_rank(50, 4, rank, drop_last=True)
        loader.load_state_dict(got[0][1])
        rest += numbers(loader)
    assert len(rest) == (50 - len(consumed)) // 4 * 4
    assert len(set(consumed + rest)) == len(consumed) + len(rest)


def test_ranks_may_change_again_and_again() -> None:
    state: dict[str, Any] = {}
    consumed: list[int] = []
    for ranks in (2, 3, 3, 1, 4):
        parts = []
        for rank in range(ranks):
            loader = of_rank(200, ranks, rank)
            loader.load_state_dict(state)
            parts.append(taken(loader, 2))
        consumed += [number for got, _ in parts for number in got]
        assert len({part["ranks"]["before"] for _, part in parts}) == 1
        state = parts[0][1]
    assert len(set(consumed)) == len(consumed) == 13 * 8
    rest = []
    for rank in range(2):
        loader = of_rank(200, 2, rank)
        loader.load_state_dict(state)
        rest += numbers(loader)
        loader.sampler.set_epoch(3)
        fresh = of_rank(200, 2, rank)
        fresh.sampler.set_epoch(3)
        assert numbers(loader) == numbers(fresh)  # the next epoch is whole again
    assert sorted(consumed + rest) == list(range(200))


def test_when_all_was_consumed_nothing_is_left_for_anybody() -> None:
    loader = of_rank(40, 2, 0)
    _, state = taken(loader, 5)
    for rank in range(3):
        second = of_rank(40, 3, rank)
        second.load_state_dict(state)
        assert list(second) == []


def test_a_sampler_that_is_not_torchs_own_wants_as_many_ranks() -> None:
    class Mine(DistributedSampler):
        pass

    data = Numbers(40)
    first = coordl.DataLoader(data, 4, sampler=Mine(data, 2, 0))
    _, state = taken(first, 2)
    second = coordl.DataLoader(data, 4, sampler=Mine(data, 4, 0))
    second.load_state_dict(state)
    with pytest.raises(coordl.StateError, match="2 ranks and the sampler has 4"):
        iter(second)
    third = coordl.DataLoader(data, 4, sampler=Mine(data, 2, 1))
    third.load_state_dict(state)
    assert len(numbers(third)) == 12
