"""Fetch stall and prep stall of an epoch, as differences between phases.

    compute    = T(ingestion)
    prep stall = T(prep)  - T(ingestion)
    fetch stall = T(fetch) - T(prep)

Source: Mohan et al., VLDB 2021, section 3 (differential analysis).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from dsanalyzer.rates import Floats, Interval, Timed

NOTICEABLE = 0.02  # share of the epoch below which a stall counts as none
MOST_ROUNDS = 60  # more are not advised: the machine is too noisy, or the stall is at the limit


def noise_floor(one: Timed, other: Timed) -> float:
    """The difference, as a share, that two measurements of one thing show here (A/A).

    95 % of the differences their draws allow are smaller: a stall must be larger to be one.
    """
    return float(np.quantile(np.abs(one.draws / other.draws - 1), 0.95))


def verdict(share: Interval, floor: float = 0.0) -> str:
    """stall, none, or inconclusive when the interval, or the noise floor, allows both."""
    if share.low > 0 and share.value >= max(NOTICEABLE, floor):
        return "stall"
    return "none" if share.high < NOTICEABLE else "inconclusive"


def rounds_needed(share: Interval, rounds: int, floor: float) -> int | None:
    """Rounds after which an inconclusive share should be settled; None where more do not help.

    Half-widths shrink with the square root of the rounds.
    """
    limit = max(NOTICEABLE, floor)
    room = share.value if share.value >= limit else NOTICEABLE - share.value
    half = (share.high - share.low) / 2
    if room <= 0:
        return None
    wanted = math.ceil(rounds * max(1.5, (half / room) ** 2))
    return wanted if wanted <= MOST_ROUNDS else None


def _stall(
    value: float, draws: Floats, whole: Timed, samples: int, rounds: int, floor: float
) -> dict[str, Any]:
    """`value` and `draws` in seconds per sample."""
    seconds = Interval.of(value * samples, draws * samples)
    share = Interval.of(value / whole.value, draws / whole.value)
    found = verdict(share, floor)
    return {
        **seconds.json(),
        "share": share.value,
        "share_low": min(1.0, max(0.0, share.low)),
        "share_high": min(1.0, max(0.0, share.high)),
        "verdict": found,
        "rounds_needed": rounds_needed(share, rounds, floor) if found == "inconclusive" else None,
    }


def _pooled(one: Timed, other: Timed) -> Timed:
    """Mean of two measurements of one thing, weighted by the inverse of their variances."""
    first, second = (1 / max(timed.error**2, 1e-300) for timed in (one, other))
    weight = first / (first + second)
    return Timed(
        weight * one.value + (1 - weight) * other.value,
        weight * one.draws + (1 - weight) * other.draws,
        (first + second) ** -0.5,
        one.freedom + other.freedom,
    )


def epoch(
    ingestion: Timed,
    prep: Timed,
    fetch: Timed,
    samples: int,
    *,
    rounds: int = 3,
    floor: float = 0.0,
) -> dict[str, Any]:
    """Times of an epoch of `samples`, in seconds, with intervals; and its speed in samples/s.

    Fetch from storage cannot be faster than from memory: where noise says so, both are two
    measurements of one time, and count as precise as they are. So the parts add up to the epoch.
    """
    fetch_draws = fetch.minus(prep)
    if prep.value > fetch.value:
        prep = fetch = _pooled(prep, fetch)
    prep_draws = prep.minus(ingestion)
    if ingestion.value > prep.value:
        prep = replace(prep, value=ingestion.value)
    fetch = replace(fetch, value=max(fetch.value, prep.value))

    def stall(value: float, draws: Floats) -> dict[str, Any]:
        return _stall(value, draws, fetch, samples, rounds, floor)

    return {
        "time_s": Interval.of(fetch.value * samples, fetch.draws * samples).json(),
        "compute_s": Interval.of(ingestion.value * samples, ingestion.draws * samples).json(),
        "prep_stall_s": stall(prep.value - ingestion.value, prep_draws),
        "fetch_stall_s": stall(fetch.value - prep.value, fetch_draws),
        "speed": Interval.of(1 / fetch.value, 1 / fetch.draws).json(),
    }
