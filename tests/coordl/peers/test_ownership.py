"""Rules of ownership: everyone agrees, everyone has a share, a change moves what it must alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordl.peers.ownership import Shares, fitted, owners

NAMES = st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=9, unique=True)
SEEDS = st.integers(0, 2**32)


def keys_of(seed: int, count: int = 500) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), np.uint64)


def names_of(found: np.ndarray, members: list[str]) -> list[str]:
    return [members[at] for at in found]


@settings(deadline=None, max_examples=40)
@given(NAMES, SEEDS, st.randoms())
def test_the_owner_does_not_depend_on_the_order_of_members(members, seed, random) -> None:
    other = list(members)
    random.shuffle(other)
    keys = keys_of(seed)
    assert names_of(owners(keys, members), members) == names_of(owners(keys, other), other)


@settings(deadline=None, max_examples=40)
@given(NAMES, SEEDS, st.data())
def test_a_loss_moves_the_lost_members_items_alone(members, seed, data) -> None:
    lost = data.draw(st.sampled_from(members))
    left = [member for member in members if member != lost]
    keys = keys_of(seed)
    before = names_of(owners(keys, members), members)
    after = names_of(owners(keys, left), left)
    for was, now in zip(before, after, strict=True):
        assert now == was if was != lost else now in left


@settings(deadline=None, max_examples=40)
@given(NAMES, SEEDS, st.text(min_size=1, max_size=20))
def test_a_newcomer_takes_items_and_moves_no_other(members, seed, new) -> None:
    if new in members:
        return
    keys = keys_of(seed)
    before = names_of(owners(keys, members), members)
    after = names_of(owners(keys, [*members, new]), [*members, new])
    assert all(now in (was, new) for was, now in zip(before, after, strict=True))


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_a_loss_is_shared_by_all_that_are_left(seed) -> None:
    members = [f"node{at}" for at in range(5)]
    keys = keys_of(seed, 20_000)
    moved = owners(keys, members) == 0
    counts = np.bincount(owners(keys[moved], members[1:]), minlength=4)
    assert counts.min() > 0.8 * counts.mean()


def test_shares_follow_the_weights() -> None:
    # given budgets of 1, 2 and 5
    found = owners(keys_of(1, 80_000), ["a", "b", "c"], [1.0, 2.0, 5.0])
    # then items are shared so, within 4 standard deviations
    counts, expected = np.bincount(found), np.array([10_000, 20_000, 50_000])
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected))


def test_keys_that_differ_in_one_half_only_are_spread_as_well() -> None:
    for column in (0, 1):
        keys = np.zeros((8_000, 2), np.uint64)
        keys[:, column] = np.arange(8_000)
        counts = np.bincount(owners(keys, ["a", "b", "c", "d"]))
        assert counts.min() > 1_800


def test_one_member_owns_everything() -> None:
    assert not owners(keys_of(2), ["only"]).any()
    assert owners(keys_of(2, 0), ["only"]).shape == (0,)


@pytest.mark.parametrize("members", [[], ["a", "a"]])
def test_members_that_are_none_or_twice_are_refused(members) -> None:
    with pytest.raises(ValueError, match="different names"):
        owners(keys_of(3), members)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("inf")], [1.0, -2.0]])
def test_weights_that_mean_nothing_are_refused(weights) -> None:
    with pytest.raises(ValueError, match="positive"):
        owners(keys_of(3), ["a", "b"], weights)


# -- weights fitted to a data set ---------------------------------------------------------------


def bytes_of(keys, sizes, members, weights) -> np.ndarray:
    return np.bincount(owners(keys, members, weights), sizes, len(members))


@pytest.mark.parametrize("wanted", [(1, 1), (1, 3), (1, 1, 1, 1), (5, 1, 2), (1,) * 32])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fitted_shares_are_even_to_an_item_or_two(seed, wanted) -> None:
    # given a thousand items between 10 and 200 KB, which chance alone shares by some per cent wrong
    keys = keys_of(seed, 1000)
    sizes = np.random.default_rng(seed).integers(10_000, 200_000, 1000)
    members = [f"node{at}" for at in range(len(wanted))]
    # when weights are fitted to budgets of that proportion
    found = fitted(keys, sizes, members, [each * 1e9 for each in wanted])
    # then nobody owns more than its share by more than two of the items
    share = sizes.sum() * np.array(wanted) / sum(wanted)
    assert (bytes_of(keys, sizes, members, found) - share).max() < 2 * 200_000
    by_chance = bytes_of(keys, sizes, members, wanted)
    assert (bytes_of(keys, sizes, members, found) - share).max() <= (by_chance - share).max()


@settings(deadline=None, max_examples=40)
@given(NAMES, SEEDS, st.randoms())
def test_fitted_owners_do_not_depend_on_the_order_of_members(members, seed, random) -> None:
    keys, sizes = keys_of(seed), np.arange(500)
    weights = {name: 1.0 + at for at, name in enumerate(members)}
    other = list(members)
    random.shuffle(other)
    shares = Shares(keys, sizes)
    found = [
        names_of(shares.owners(keys, tuple(those), tuple(weights[name] for name in those)), those)
        for those in (members, other)
    ]
    assert found[0] == found[1]


def test_a_member_that_has_no_room_to_speak_of_is_fitted_too() -> None:
    keys, sizes = keys_of(4), np.full(500, 100_000)
    found = fitted(keys, sizes, ["a", "b"], [1.0, 1e12])
    assert all(0 < weight < np.inf for weight in found)
    assert bytes_of(keys, sizes, ["a", "b"], found)[0] <= 100_000


def test_items_that_come_again_count_once() -> None:
    # given a list that names a tenth of its files twenty times more
    keys, sizes = keys_of(5, 1000), np.full(1000, 100_000)
    again = np.concatenate([np.arange(1000), np.repeat(np.arange(100), 20)])
    found = fitted(keys[again], sizes[again], ["a", "b"], [1.0, 1.0])
    held = bytes_of(keys, sizes, ["a", "b"], found)
    assert held.max() - held.min() < 4 * 100_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_loss_moves_few_items_between_those_that_stay(seed) -> None:
    keys, sizes = keys_of(seed, 1000), np.full(1000, 100_000)
    shares = Shares(keys, sizes)
    before = shares.owners(keys, ("a", "b", "c"), (1.0, 1.0, 1.0))
    after = shares.owners(keys, ("a", "b"), (1.0, 1.0))
    moved = (before != 2) & (before != after)
    assert moved.mean() < 0.05


def test_where_it_takes_too_long_or_nothing_is_known_weights_are_as_given() -> None:
    some = [2.0, 3.0]
    assert fitted(keys_of(1, 200_000), np.ones(200_000, int), ["a", "b"], some) == (2.0, 3.0)
    for keys, sizes in (
        (keys_of(1), np.zeros(500, int)),
        (np.zeros((500, 2), np.uint64), np.ones(500)),
    ):
        assert fitted(keys, sizes, ["a", "b"], some) == (2.0, 3.0)
    assert fitted(keys_of(1, 0), np.zeros(0, int), ["a", "b"], some) == (2.0, 3.0)
