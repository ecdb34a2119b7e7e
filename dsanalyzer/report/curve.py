"""The fetch rate as a function of the cached fraction.

Source: Mohan et al., "Analyzing and Mitigating Data Stalls in DNN Training", section 5:
1/F = h/C + (1 − h)/S. The hit rate h of an LRU cache under a fresh permutation per epoch is
x + (1 − x)·ln(1 − x); a cache that never evicts hits exactly what it holds, h = x.
"""

from __future__ import annotations

import math

from dsanalyzer.report.document import Policy


def hit_rate(policy: Policy, cached_fraction: float) -> float:
    """Share of the fetches that a cache holding `cached_fraction` of the data set serves."""
    if not 0 <= cached_fraction <= 1:
        raise ValueError(f"cached_fraction must be from 0 to 1, not {cached_fraction}")
    if policy == "never-evict" or cached_fraction in (0, 1):
        return float(cached_fraction)
    missing = 1 - cached_fraction
    return cached_fraction + missing * math.log(missing)


def miss_share(policy: Policy, cached_fraction: float) -> float:
    """Share of the fetches that go to storage."""
    return 1 - hit_rate(policy, cached_fraction)


def fetch_rate(policy: Policy, cached_fraction: float, storage: float, cache: float) -> float:
    """F in samples/s from S = `storage` and C = `cache`, both above 0."""
    hit = hit_rate(policy, cached_fraction)
    return 1 / (hit / cache + (1 - hit) / storage)


def knee(policy: Policy, storage: float, cache: float, limit: float) -> float | None:
    """The cached fraction where F reaches `limit` samples/s; None where it never does so.

    0.0 where storage alone is fast enough. Beyond the knee more cache buys nothing.
    """
    if fetch_rate(policy, 0, storage, cache) >= limit:
        return 0.0
    if fetch_rate(policy, 1, storage, cache) < limit:
        return None
    low, high = 0.0, 1.0
    for _ in range(50):  # F rises with x under both policies, so bisection is safe
        middle = (low + high) / 2
        if fetch_rate(policy, middle, storage, cache) < limit:
            low = middle
        else:
            high = middle
    return high
