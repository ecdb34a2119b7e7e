"""Intervals: they cover the truth as often as they say."""

import numpy as np
import pytest

from dsanalyzer import rates, stalls


def passes_of(rng, count, steps, mean_s, spread_s, trend=0.0, burst=1):
    made = []
    for _ in range(count):
        base = mean_s * (1 + trend * (np.arange(steps) / steps - 0.5))
        each = np.maximum(1e-6, base + rng.normal(0, spread_s, steps))
        bursty = np.zeros(steps)
        for start in range(0, steps, burst):  # one step in `burst` pays for the others
            bursty[start] = each[start : start + burst].sum()
        made.append({"wall_s": bursty.sum(), "samples": steps * 32, "steps_s": list(bursty)})
    return made


@pytest.mark.parametrize("trend", [0.0, 1.0])
def test_the_95_percent_interval_covers_the_truth_about_as_often(trend):
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        passes = passes_of(rng, 3, 80, 0.05, 0.01, trend=trend, burst=4)
        value, draws = rates.time_per_sample(passes, block_steps=8, random=rng)
        interval = rates.Interval.of(value, draws)
        covered += interval.low <= 0.05 / 32 <= interval.high

    assert 170 <= covered <= 200


def test_the_mean_is_a_ratio_of_sums():
    passes = [
        {"wall_s": 1.0, "samples": 10, "steps_s": [1.0]},
        {"wall_s": 1.0, "samples": 30, "steps_s": [1.0]},
    ]
    value, _ = rates.time_per_sample(passes, 1, np.random.default_rng(0))

    assert value == pytest.approx(2.0 / 40)


def timed(value, spread, seed=3):
    return value, np.random.default_rng(seed).normal(value, spread, 2000)


def test_stalls_are_differences_between_phases_and_add_up_to_the_epoch():
    ingestion, prep, fetch = timed(0.001, 1e-6), timed(0.002, 1e-6), timed(0.005, 1e-6)

    epoch = stalls.epoch(ingestion, prep, fetch, samples=1000)

    parts = ("compute_s", "prep_stall_s", "fetch_stall_s")
    assert sum(epoch[p]["value"] for p in parts) == pytest.approx(epoch["time_s"]["value"])
    assert epoch["fetch_stall_s"]["value"] == pytest.approx(3.0)
    assert epoch["fetch_stall_s"]["verdict"] == "stall"
    assert epoch["fetch_stall_s"]["share"] == pytest.approx(0.6)


def test_equal_phases_are_no_stall_and_noisy_ones_are_inconclusive():
    same = timed(0.005, 1e-6)
    assert stalls.epoch(same, same, same, 1)["prep_stall_s"]["verdict"] == "none"

    noisy = stalls.epoch(
        timed(0.004, 5e-4, 1), timed(0.0042, 5e-4, 2), timed(0.005, 5e-4, 3), samples=1
    )
    assert noisy["prep_stall_s"]["verdict"] == "inconclusive"
