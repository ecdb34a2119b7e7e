"""The closed form for the speed of a training job.

    F = 1 / (h / C + (1 - h) / S)        fetch rate at hit rate h
    speed = min(F, P, G)                 samples/s

S, C, P and G are the storage, cache, prep and ingestion rates in samples/s (C may be infinite).
Source: Mohan et al., VLDB 2021, section 5.
"""

from __future__ import annotations

import math

POLICIES = ("lru", "never-evict")


def hit_rate(policy: str, cached_fraction: float) -> float:
    """Hits per read in a steady epoch that reads every item once, in a fresh random order.

    never-evict: what is held is hit, h = x. lru: at position u of the epoch, what survives of the
    last epoch is x - u of the 1 - u items still to come; integrated, h = x + (1 - x) ln(1 - x).

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
    raise ValueError(f"unknown cache policy {policy!r}; choose one of {', '.join(POLICIES)}")


def fetch_rate(hits: float, storage_rate: float, cache_rate: float) -> float:
    """F in samples/s."""
    return 1 / (hits / cache_rate + (1 - hits) / storage_rate)


def speed(fetch: float, prep: float, gpu: float) -> tuple[float, str]:
    """min(F, P, G) in samples/s, and which of them it is: fetch, prep or gpu."""
    return min((fetch, "fetch"), (prep, "prep"), (gpu, "gpu"))
