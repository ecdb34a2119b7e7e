"""The closed form against what it claims to describe."""

import random
from collections import OrderedDict

import pytest

from dsanalyzer.predict import model


def lru_hits(items: int, capacity: int, epochs: int) -> float:
    """Steady hits per read of a simulated LRU under a fresh permutation per epoch."""
    rng = random.Random(0)
    held: OrderedDict[int, None] = OrderedDict()
    order = list(range(items))
    hits = 0
    for epoch in range(epochs + 1):
        rng.shuffle(order)
        for item in order:
            if item in held:
                held.move_to_end(item)
                hits += epoch > 0
            else:
                held[item] = None
                if len(held) > capacity:
                    held.popitem(last=False)
    return hits / (items * epochs)


@pytest.mark.parametrize("fraction", [0.2, 0.35, 0.5, 0.65, 0.8])
def test_lru_formula_is_what_a_simulated_lru_does(fraction):
    simulated = lru_hits(4000, int(4000 * fraction), epochs=6)

    assert model.hit_rate("lru", fraction) == pytest.approx(simulated, abs=0.01)


def test_never_evict_hits_exactly_what_it_holds():
    assert model.hit_rate("never-evict", 0.65) == 0.65


@pytest.mark.parametrize("policy", model.POLICIES)
def test_nothing_cached_hits_nothing_and_all_cached_hits_all(policy):
    assert model.hit_rate(policy, 0.0) == 0.0
    assert model.hit_rate(policy, 1.0) == 1.0


def test_fetch_rate_is_the_storage_rate_when_nothing_hits():
    assert model.fetch_rate(0.0, storage_rate=200, cache_rate=1e4) == pytest.approx(200)


def test_the_slowest_rate_sets_the_speed_and_is_named():
    assert model.speed(300, 500, 900) == (300, "fetch")
    assert model.speed(300, 200, 900) == (200, "prep")
    assert model.speed(300, 200, 100) == (100, "gpu")


def test_an_unknown_policy_and_a_fraction_beyond_one_are_refused():
    with pytest.raises(ValueError, match="fifo"):
        model.hit_rate("fifo", 0.5)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        model.hit_rate("lru", 1.5)


def test_the_knee_is_where_f_meets_the_limit():
    for policy in model.POLICIES:
        bend = model.knee(policy, 136, 5000, 400)
        assert model.fetch_rate_at(policy, bend, 136, 5000) == pytest.approx(400)
    assert model.knee("never-evict", 136, 5000, 400) < model.knee("lru", 136, 5000, 400)


def test_there_is_no_knee_where_even_a_full_cache_is_too_slow_or_none_is_needed():
    assert model.knee("lru", 136, 500, 900) is None
    assert model.knee("lru", 1000, 5000, 900) == 0.0
