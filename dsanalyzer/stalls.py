"""Fetch stall and prep stall of an epoch, as differences between phases.

    compute    = T(ingestion)
    prep stall = T(prep)  - T(ingestion)
    fetch stall = T(fetch) - T(prep)

Source: Mohan et al., VLDB 2021, section 3 (differential analysis).
"""

from __future__ import annotations

from typing import Any

from dsanalyzer.rates import Floats, Interval

NOTICEABLE = 0.02  # share of the epoch below which a stall counts as none

Timed = tuple[float, Floats]  # seconds per sample and its bootstrap draws


def verdict(share: Interval) -> str:
    """stall, none, or inconclusive when the interval allows both."""
    if share.low > 0 and share.value >= NOTICEABLE:
        return "stall"
    return "none" if share.high < NOTICEABLE else "inconclusive"


def _stall(slow: Timed, fast: Timed, whole: Timed, samples: int) -> dict[str, Any]:
    seconds = Interval.of(max(0.0, slow[0] - fast[0]) * samples, (slow[1] - fast[1]) * samples)
    share = Interval.of(max(0.0, slow[0] - fast[0]) / whole[0], (slow[1] - fast[1]) / whole[1])
    return {
        **seconds.json(),
        "share": share.value,
        "share_low": min(1.0, max(0.0, share.low)),
        "share_high": min(1.0, max(0.0, share.high)),
        "verdict": verdict(share),
    }


def epoch(ingestion: Timed, prep: Timed, fetch: Timed, samples: int) -> dict[str, Any]:
    """Times of an epoch of `samples`, in seconds, with intervals; and its speed in samples/s.

    Fetch from storage cannot be faster than from memory: where noise says so, prep is taken to be
    as fast as fetch, so that the parts add up to the epoch.
    """
    if prep[0] > fetch[0]:
        prep = fetch[0], prep[1] * (fetch[0] / prep[0])
    return {
        "time_s": Interval.of(fetch[0] * samples, fetch[1] * samples).json(),
        "compute_s": Interval.of(ingestion[0] * samples, ingestion[1] * samples).json(),
        "prep_stall_s": _stall(prep, ingestion, fetch, samples),
        "fetch_stall_s": _stall(fetch, prep, fetch, samples),
        "speed": Interval.of(1 / fetch[0], 1 / fetch[1]).json(),
    }
