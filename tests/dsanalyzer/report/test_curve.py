"""F over the cached fraction, held against a cache that is played through."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest

from dsanalyzer.report.curve import fetch_rate, hit_rate, knee


def played_lru_hits(cached: float, items: int = 2000, epochs: int = 6) -> float:
    """Hit rate of an LRU cache under a fresh permutation per epoch, first epoch left out."""
    draw, held, hits = random.Random(5), OrderedDict(), 0
    order = list(range(items))
    for epoch in range(epochs):
        draw.shuffle(order)
        for item in order:
            if item in held:
                held.move_to_end(item)
                hits += epoch > 0
            else:
                held[item] = None
                if len(held) > cached * items:
                    held.popitem(last=False)
    return hits / (items * (epochs - 1))


@pytest.mark.parametrize("cached", [0.35, 0.65, 0.8])
def test_the_lru_hit_rate_is_that_of_a_played_cache(cached):
    assert hit_rate("lru", cached) == pytest.approx(played_lru_hits(cached), abs=0.01)


def test_never_evict_hits_what_it_holds():
    assert [hit_rate("never-evict", x) for x in (0, 0.35, 1)] == [0, 0.35, 1]
    assert [hit_rate("lru", x) for x in (0, 1)] == [0, 1]


def test_without_cache_f_is_s_and_with_all_cached_it_is_c():
    for policy in ("lru", "never-evict"):
        assert fetch_rate(policy, 0, 136, 5000) == pytest.approx(136)
        assert fetch_rate(policy, 1, 136, 5000) == pytest.approx(5000)


def test_the_knee_is_where_f_meets_the_limit():
    for policy in ("lru", "never-evict"):
        bend = knee(policy, 136, 5000, 400)
        assert fetch_rate(policy, bend, 136, 5000) == pytest.approx(400)
    assert knee("never-evict", 136, 5000, 400) < knee("lru", 136, 5000, 400)


def test_there_is_no_knee_where_even_a_full_cache_is_too_slow():
    assert knee("lru", 136, 500, 900) is None
    assert knee("lru", 1000, 5000, 900) == 0.0


def test_a_fraction_beyond_one_is_refused():
    with pytest.raises(ValueError, match="from 0 to 1, not 65"):
        hit_rate("lru", 65)
