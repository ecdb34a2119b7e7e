"""Fetch stall and prep stall of an epoch, as differences between phases.

    compute     = T(ingestion)
    delivery    = T(delivery) - T(ingestion)
    prep stall  = T(prep)     - T(delivery)
    fetch stall = T(fetch)    - T(prep)

Source: Mohan et al., VLDB 2021, section 3 (differential analysis), whose prep stall includes what
delivery takes: the same minibatches, ready, out of worker processes.

Verdicts are those of a test of equivalence: small is not the same as not found (Schuirmann, J.
Pharmacokinet. Biopharm. 15 (1987)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsanalyzer.rates import Floats, Interval, Timed

THRESHOLD = 0.02  # share of the epoch below which a stall is of no relevance
MOST_ROUNDS = 60  # more are not advised: the machine is too noisy, or the stall is at the limit


def noise_floor(one: Timed, other: Timed) -> float:
    """The difference, as a share, that two measurements of one thing show here (A/A).

    95 % of the differences their draws allow are smaller. A stall must be larger to be one: the
    longer of its two phases against the shorter, as here one measurement against the other.
    """
    return float(np.quantile(np.abs(one.draws / other.draws - 1), 0.95))


def verdict(share: Interval, floor: float = 0.0, threshold: float = THRESHOLD) -> str:
    """stall or none where the whole interval lies above or below the threshold, else inconclusive.

    So is a stall that two measurements of one thing may show here (`floor`).
    """
    if share.low >= threshold and share.value >= floor:
        return "stall"
    return "none" if share.high < threshold else "inconclusive"


def rounds_needed(
    share: Interval, rounds: int, floor: float, threshold: float = THRESHOLD
) -> int | None:
    """Rounds after which an inconclusive share should be settled; None where more do not help.

    Half-widths shrink with the square root of the rounds.
    """
    room = abs(share.value - threshold)
    half = (share.high - share.low) / 2
    if room == 0 or threshold < share.value < floor:
        return None
    wanted = math.ceil(rounds * max(1.5, (half / room) ** 2))
    return wanted if wanted <= MOST_ROUNDS else None


@dataclass(frozen=True)
class Rule:
    """What verdicts go by: see `verdict`, and `rounds` as measured, for `rounds_needed`."""

    floor: float = 0.0
    threshold: float = THRESHOLD
    rounds: int = 3


def _stall(
    value: float, draws: Floats, shorter: Timed, whole: Timed, samples: int, rule: Rule
) -> dict[str, Any]:
    """`value` and `draws` in seconds per sample; `shorter` is the phase that has no such stall."""
    floor = rule.floor * shorter.value / whole.value  # as a share of the epoch
    seconds = Interval.of(value * samples, draws * samples)
    share = Interval.of(value / whole.value, draws / whole.value)
    found = verdict(share, floor, rule.threshold)
    more = rounds_needed(share, rule.rounds, floor, rule.threshold)
    return {
        **seconds.json(),
        "share": share.value,
        "share_low": min(1.0, max(0.0, share.low)),
        "share_high": min(1.0, max(0.0, share.high)),
        "floor": floor,
        "verdict": found,
        "rounds_needed": more if found == "inconclusive" else None,
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


def beyond(ingestion: Timed, other: Timed, samples: int) -> dict[str, float]:
    """Seconds of an epoch of `samples` that `other` takes longer than ingestion; at least 0."""
    draws = other.minus(ingestion) * samples
    longer = Interval.of((other.value - ingestion.value) * samples, draws).json()
    return {name: max(0.0, bound) for name, bound in longer.items()}


def epoch(
    ingestion: Timed,
    prep: Timed,
    fetch: Timed,
    samples: int,
    rule: Rule = Rule(),
    delivered: Timed | None = None,
) -> dict[str, Any]:
    """Times of an epoch of `samples`, in seconds, with intervals; and its speed in samples/s.

    `delivered` is ingestion out of workers; None where there are none, and delivery takes nothing.
    Fetch from storage cannot be faster than from memory: where noise says so, both are two
    measurements of one time, and count as precise as they are. So the parts add up to the epoch.
    """
    fetch_draws = fetch.minus(prep)
    if prep.value > fetch.value:
        prep = fetch = _pooled(prep, fetch)
    ready = ingestion if delivered is None else delivered
    delivery_draws = ready.minus(ingestion) if delivered else np.zeros_like(ingestion.draws)
    prep_draws = prep.minus(ready)
    prep = replace(prep, value=max(prep.value, ingestion.value))
    # Prep has delivery in it: a block of delivery that noise made longer must not lengthen epochs.
    ready = replace(ready, value=min(max(ready.value, ingestion.value), prep.value))
    fetch = replace(fetch, value=max(fetch.value, prep.value))

    def stall(longer: Timed, shorter: Timed, draws: Floats) -> dict[str, Any]:
        return _stall(longer.value - shorter.value, draws, shorter, fetch, samples, rule)

    return {
        "time_s": Interval.of(fetch.value * samples, fetch.draws * samples).json(),
        "compute_s": Interval.of(ingestion.value * samples, ingestion.draws * samples).json(),
        "delivery_s": Interval.of(
            (ready.value - ingestion.value) * samples, delivery_draws * samples
        ).json(),
        "prep_stall_s": stall(prep, ready, prep_draws),
        "fetch_stall_s": stall(fetch, prep, fetch_draws),
        "speed": Interval.of(1 / fetch.value, 1 / fetch.draws).json(),
    }
