"""The emulated page cache keeps what a cache of that size and policy would."""

import random

import pytest

from dsanalyzer.measure import timing
from dsanalyzer.measure.policy import EVICTION_LAG_S, PageCachePolicy


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing, "clock", lambda: now[0])
    return now


def policy_over(count, budget, policy):
    evicted = []
    sizes = {f"f{i}": 100 for i in range(count)}
    return PageCachePolicy(sizes, budget, policy, evict=evicted.append), evicted


def test_lru_evicts_the_least_recently_read(clock):
    cache, evicted = policy_over(4, budget=200, policy="lru")
    for second, name in enumerate(["f0", "f1", "f0", "f2"]):
        clock[0] = float(second)
        cache.touch(name)

    assert evicted == ["f1"]


def test_a_file_is_not_evicted_right_after_its_open_because_the_read_comes_later(clock):
    cache, evicted = policy_over(3, budget=0, policy="lru")
    cache.touch("f0")
    cache.evict_due()
    assert evicted == []

    clock[0] = EVICTION_LAG_S
    cache.evict_due()
    assert evicted == ["f0"]


def test_a_file_read_long_after_its_open_is_evicted_when_the_pass_ends(clock):
    cache, evicted = policy_over(3, budget=0, policy="lru")
    cache.touch("f0")
    clock[0] = EVICTION_LAG_S
    cache.evict_due()  # too early: the loader's queue was deep and the read comes after this

    cache.end_pass()

    assert evicted == ["f0", "f0"]


def test_never_evict_keeps_what_came_first(clock):
    cache, evicted = policy_over(4, budget=200, policy="never-evict")
    for name in ["f0", "f1", "f2", "f3", "f0"]:
        cache.touch(name)
    cache.end_pass()

    assert evicted == ["f2", "f3"]
    assert cache.missed_files == 4


def test_misses_of_a_steady_lru_epoch_follow_the_theory(clock):
    from dsanalyzer.predict.model import hit_rate

    cache, _ = policy_over(1000, budget=65_000, policy="lru")
    order = list(cache.sizes)
    rng = random.Random(1)
    for _ in range(4):
        rng.shuffle(order)
        cache.start_pass()
        for name in order:
            clock[0] += 1
            cache.touch(name)

    assert cache.missed_files / 1000 == pytest.approx(1 - hit_rate("lru", 0.65), abs=0.03)


def test_files_of_no_interest_are_ignored(clock):
    cache, _ = policy_over(1, budget=100, policy="lru")
    cache.touch("/etc/hostname")

    assert cache.opens == 0


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="choose lru or never-evict"):
        PageCachePolicy({}, 0, "mru")
