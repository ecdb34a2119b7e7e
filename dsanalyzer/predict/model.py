"""The closed form for the speed of a training job.

    F = 1 / (h / C + (1 - h) / S)        fetch rate at hit rate h
    speed = min(F, P, G)                 samples/s

S, C, P and G are the storage, cache, prep and ingestion rates in samples/s (C may be infinite).
Source: Mohan et al., VLDB 2021, section 5.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsanalyzer.report.document import Result

POLICIES = ("lru", "never-evict", "pagecache")
# Hit rates of Linux's page cache, by cached fraction: 8,000 files of 110 KB under a memory control
# group, a fresh permutation per epoch, mean of seven epochs.
PAGECACHE = ((0.0, 0.0), (0.35, 0.123), (0.5, 0.215), (0.65, 0.362), (0.8, 0.571), (1.0, 1.0))


def effective_cache(result: Result) -> tuple[str, float]:
    """Policy and cached fraction that a profiled job's reads followed.

    The page cache's as asked for; or, for a loader with a cache of its own, never-evict at the
    share of the data set that epochs after the first did not read from storage.
    """
    later = [epoch["read_share"] for epoch in result["epochs"] if epoch["epoch"] > 0]
    if result["loader"]["holds_cache"] and later:
        return "never-evict", min(1.0, max(0.0, 1 - sum(later) / len(later)))
    return result["options"]["policy"], result["options"]["cached_fraction"]


def hit_rate(policy: str, cached_fraction: float) -> float:
    """Hits per read in a steady epoch that reads every item once, in a fresh random order.

    never-evict: what is held is hit, h = x. lru: at position u of the epoch, what survives of the
    last epoch is x - u of the 1 - u items still to come; integrated, h = x + (1 - x) ln(1 - x).
    pagecache: as measured, between the two (PAGECACHE), interpolated.

    Raises:
        ValueError: unknown policy, or a fraction outside [0, 1].
    """
    x = cached_fraction
    if not 0 <= x <= 1:
        raise ValueError(f"cached fraction {x} is not between 0 and 1")
    if policy == "never-evict":
        return x
    if policy == "lru":
        return 1.0 if x == 1 else max(0.0, x + (1 - x) * math.log(1 - x))
    if policy == "pagecache":
        for (low, least), (high, most) in pairwise(PAGECACHE):
            if x <= high:
                return least + (most - least) * (x - low) / (high - low)
    raise ValueError(f"unknown cache policy {policy!r}; choose one of {', '.join(POLICIES)}")


def fetch_rate(hits: float, storage_rate: float, cache_rate: float) -> float:
    """F in samples/s."""
    return 1 / (hits / cache_rate + (1 - hits) / storage_rate)


def fetch_rate_at(policy: str, cached_fraction: float, storage: float, cache: float) -> float:
    """F(x) in samples/s: the fetch rate when a share of the data set is cached under a policy."""
    return fetch_rate(hit_rate(policy, cached_fraction), storage, cache)


def knee(policy: str, storage: float, cache: float, limit: float) -> float | None:
    """The cached fraction where F reaches `limit` samples/s; None where it never does.

    0.0 where storage alone is fast enough. Beyond the knee more cache buys nothing.
    """
    if fetch_rate_at(policy, 0, storage, cache) >= limit:
        return 0.0
    if fetch_rate_at(policy, 1, storage, cache) < limit:
        return None
    low, high = 0.0, 1.0
    for _ in range(50):  # F rises with x under both policies, so bisection is safe
        middle = (low + high) / 2
        if fetch_rate_at(policy, middle, storage, cache) < limit:
            low = middle
        else:
            high = middle
    return high


def shared_hit_rates(
    policy: str, cached_fraction: float, servers: int, partitioned: bool
) -> tuple[float, float] | None:
    """Hits per read in a server's own memory and in a peer's; None where no formula is known.

    Each server reads a random n-th of the data set per epoch. A cache that never evicts hits what
    it holds; partitioned caches hold n times as much together, all but one n-th of it elsewhere.
    """
    if servers == 1:
        return hit_rate(policy, cached_fraction), 0.0
    if policy != "never-evict":
        return None
    if not partitioned:
        return cached_fraction, 0.0
    together = min(1.0, servers * cached_fraction)
    return together / servers, together * (1 - 1 / servers)


def speed(fetch: float, prep: float, gpu: float) -> tuple[float, str]:
    """min(F, P, G) in samples/s, and which of them it is: fetch, prep or gpu."""
    return min((fetch, "fetch"), (prep, "prep"), (gpu, "gpu"))
