"""A random subset is held: by a plain reference, in native code and Python, in any process."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coordl import _native
from coordl.fetch.admission import admission_limit
from coordl.fetch.cache import MinIOCache
from coordl.fetch.item import Items, identify
from coordl.fetch.storage import fetch

MASK = 2**64 - 1


def number(seed: int, hi: int, lo: int) -> int:
    """What native/fetch/tiers.cpp computes, in whole numbers."""

    def mix(h: int) -> int:
        h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & MASK
        h = (h ^ h >> 27) * 0x94D049BB133111EB & MASK
        return h ^ h >> 31

    return mix((mix((seed + 0x9E3779B97F4A7C15 + hi) & MASK) + lo) & MASK)


def subset(items: Items, seed: int, budget: int) -> set[int]:
    """The items of a random order up to the first that no longer fits: slowly."""
    order = sorted(range(len(items)), key=lambda i: number(seed, *map(int, items.keys[i])))
    chosen, used = set(), 0
    for i in order:
        used += int(items.sizes[i])
        if used > budget:
            break
        chosen.add(i)
    return chosen


@pytest.fixture
def items(tmp_path: Path) -> Items:
    rng = random.Random(5)
    paths = []
    for i in range(200):
        path = tmp_path / f"{i}.bin"
        path.write_bytes(rng.randbytes(rng.randrange(0, 3000)))
        paths.append(str(path))
    return identify(paths)


def held(items: Items, cache: MinIOCache) -> set[int]:
    return {i for i in range(len(items)) if cache.get(items.keys[i]) is not None}


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_numbers_are_those_of_the_plain_reference(seed: int) -> None:
    rng = random.Random(seed)
    keys = [(rng.getrandbits(64), rng.getrandbits(64)) for _ in range(500)] + [(0, 0), (MASK, MASK)]
    numbers = _native.admission_numbers(seed, np.array(keys, dtype=np.uint64))
    assert numbers.tolist() == [number(seed, *key) for key in keys]


@pytest.mark.parametrize("share", ["1%", "35%", "80%"])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_cache_holds_the_subset_whatever_comes_first(items: Items, share: str, seed: int) -> None:
    expected = subset(items, seed, items.total_bytes * int(share[:-1]) // 100)
    for backwards in (False, True):
        with MinIOCache(
            share, name="t-subset", dataset_bytes=items.total_bytes, form="original",
            admission="random", admission_seed=seed,
        ) as cache:  # fmt: skip
            cache.serve("t-subset", items)
            for i in reversed(range(200)) if backwards else range(200):
                fetch(items, i, cache)
            assert held(items, cache) == expected
            assert cache.stats()["admission"] == "random"


def test_another_seed_is_another_subset_and_everything_is_everything(items: Items) -> None:
    assert subset(items, 0, 100_000) != subset(items, 1, 100_000)
    with MinIOCache("100%", admission="random") as cache:
        cache.serve("t-every", items)
        for i in range(200):
            fetch(items, i, cache)
        assert len(held(items, cache)) == 200
        assert cache.stats()["chosen_share"] == 1


def test_a_pickled_cache_and_a_forked_child_choose_the_same(
    items: Items, in_fork: Callable[[Callable[[], object]], int]
) -> None:
    import pickle

    expected = subset(items, 3, items.total_bytes // 2)
    with MinIOCache("50%", admission="random", admission_seed=3, form="original") as cache:
        cache.serve("t-processes", items)

        def child() -> None:
            copy = pickle.loads(pickle.dumps(cache))
            for i in range(100):
                fetch(items, i, copy)
            copy.close()

        assert in_fork(child) == 0
        for i in range(100, 200):
            fetch(items, i, cache)
        assert held(items, cache) == expected


def test_limits_of_nothing_and_of_everything() -> None:
    numbers, sizes = np.array([30, 10, 20], np.uint64), np.array([5, 5, 5])
    assert admission_limit(numbers, sizes, 4) == 0
    assert admission_limit(numbers, sizes, 9) == 10
    assert admission_limit(numbers, sizes, 10) == 20
    assert admission_limit(numbers, sizes, 15) == MASK


def test_without_a_data_set_nobody_can_choose() -> None:
    with MinIOCache(1000, name="t-nobody", admission="random") as cache:
        with pytest.raises(ValueError, match=r"call serve\(\) first"):
            cache.admit((1, 1), b"x")


def test_an_unknown_policy_is_called_by_its_name() -> None:
    with pytest.raises(ValueError, match="admission='lru' is unknown: use 'first', 'random'"):
        MinIOCache(1000, name="t-policy", admission="lru")
