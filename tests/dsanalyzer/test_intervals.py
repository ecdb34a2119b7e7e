"""Intervals and verdicts from step times; how often they are right is in test_coverage.py."""

import numpy as np
import pytest

from dsanalyzer import rates, stalls
from dsanalyzer.rates import Interval, Timed


def passes_of(steps_s, count=3, samples=32):
    steps_s = list(map(float, steps_s))
    one = {"wall_s": sum(steps_s), "samples": len(steps_s) * samples, "steps_s": steps_s}
    return [one] * count


def test_the_mean_is_a_ratio_of_sums():
    passes = [
        {"wall_s": 1.0, "samples": 10, "steps_s": [1.0]},
        {"wall_s": 1.0, "samples": 30, "steps_s": [1.0]},
    ]
    found = rates.time_phases({"prep": passes}, 1, np.random.default_rng(0))

    assert found["prep"].value == pytest.approx(2.0 / 40)


def test_what_belongs_to_a_position_is_not_taken_for_noise():
    """An LRU epoch's trend and a burst in every fourth step, the same in every pass: no spread."""
    trend = np.linspace(0.01, 0.09, 64) * np.tile([0.0, 0.0, 0.0, 4.0], 16)

    found = rates.time_phases({"fetch": passes_of(trend)}, 8, np.random.default_rng(0))

    assert np.ptp(found["fetch"].draws) < 1e-9


def test_passes_that_differ_as_a_whole_widen_every_phase():
    steady = np.full(64, 0.05)
    uneven = [*passes_of(steady, 3), *passes_of(steady * 1.03, 3)]
    random = np.random.default_rng(0)

    alone = rates.time_phases({"prep": passes_of(steady)}, 8, random)["prep"]
    beside = rates.time_phases({"ingestion": uneven, "prep": passes_of(steady)}, 8, random)["prep"]

    assert np.std(beside.draws) / beside.value > 0.005
    assert np.std(alone.draws) < 1e-9


def test_a_single_pass_is_held_against_itself():
    steps = np.random.default_rng(1).uniform(0.04, 0.06, 64)

    found = rates.time_phases({"cold": passes_of(steps, 1)}, 4, np.random.default_rng(0))["cold"]
    interval = Interval.of(found.value, found.draws)

    assert interval.low < steps.mean() / 32 < interval.high


def timed(value, spread, seed=3):
    return Timed.of(value, spread, 1000.0, np.random.default_rng(seed))


def test_stalls_are_differences_between_phases_and_add_up_to_the_epoch():
    ingestion, prep, fetch = timed(0.001, 1e-6), timed(0.002, 1e-6), timed(0.005, 1e-6)

    epoch = stalls.epoch(ingestion, prep, fetch, samples=1000)

    parts = ("compute_s", "prep_stall_s", "fetch_stall_s")
    assert sum(epoch[p]["value"] for p in parts) == pytest.approx(epoch["time_s"]["value"])
    assert epoch["fetch_stall_s"]["value"] == pytest.approx(3.0)
    assert epoch["fetch_stall_s"]["verdict"] == "stall"
    assert epoch["fetch_stall_s"]["share"] == pytest.approx(0.6)


@pytest.mark.parametrize("prep", [0.0048, 0.0052])
@pytest.mark.parametrize("fetch", [0.0049, 0.0051])
def test_parts_add_up_whatever_noise_says(prep, fetch):
    epoch = stalls.epoch(timed(0.005, 1e-4, 1), timed(prep, 1e-4, 2), timed(fetch, 1e-4, 4), 10)

    parts = ("compute_s", "prep_stall_s", "fetch_stall_s")
    assert sum(epoch[p]["value"] for p in parts) == pytest.approx(epoch["time_s"]["value"])
    assert min(epoch[p]["value"] for p in parts) >= 0


def test_equal_phases_are_no_stall_and_noisy_ones_are_inconclusive():
    same = timed(0.005, 1e-6)
    assert stalls.epoch(same, same, same, 1)["prep_stall_s"]["verdict"] == "none"

    noisy = stalls.epoch(
        timed(0.004, 5e-4, 1), timed(0.0042, 5e-4, 2), timed(0.005, 5e-4, 3), samples=1
    )
    assert noisy["prep_stall_s"]["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("low", "value", "high", "says"),
    [
        (0.001, 0.004, 0.007, "none"),  # surely there, and of no relevance
        (-0.01, 0.0, 0.01, "none"),
        (0.019, 0.03, 0.041, "inconclusive"),  # there, and it may be too small to count
        (-0.02, 0.0, 0.021, "inconclusive"),
        (0.021, 0.03, 0.039, "stall"),
    ],
)
def test_a_verdict_wants_the_whole_interval_on_one_side_of_the_threshold(low, value, high, says):
    assert stalls.verdict(Interval(value, low, high)) == says
    assert stalls.verdict(Interval(2 * value, 2 * low, 2 * high), threshold=0.04) == says


def test_delivery_is_no_prep_stall():
    """Ready minibatches out of workers take as long as prepared ones: there is nothing to prepare
    faster."""
    ingestion, delivered, prep = timed(0.005, 1e-6), timed(0.006, 1e-6, 2), timed(0.006, 1e-6, 4)

    epoch = stalls.epoch(ingestion, prep, prep, 1000, delivered=delivered)

    assert epoch["prep_stall_s"]["verdict"] == "none"
    assert epoch["delivery_s"]["value"] == pytest.approx(1.0)
    assert 0.99 < epoch["delivery_s"]["low"] < 1.0 < epoch["delivery_s"]["high"] < 1.01
    parts = ("compute_s", "delivery_s", "prep_stall_s", "fetch_stall_s")
    assert sum(epoch[p]["value"] for p in parts) == pytest.approx(epoch["time_s"]["value"])
    slowed = stalls.epoch(ingestion, prep, prep, 1000, delivered=timed(0.009, 1e-6, 2))
    assert slowed["time_s"] == epoch["time_s"]  # by noise in one phase, not the epochs themselves
    assert sum(slowed[p]["value"] for p in parts) == pytest.approx(6.0)
    without = stalls.epoch(ingestion, prep, prep, 1000)
    assert without["prep_stall_s"]["verdict"] == "stall"
    assert without["delivery_s"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_difference_within_the_noise_floor_is_no_stall():
    phases = timed(0.0050, 1e-6), timed(0.0052, 1e-6, 2), timed(0.0052, 1e-6, 2)

    assert stalls.epoch(*phases, 1)["prep_stall_s"]["verdict"] == "stall"
    doubtful = stalls.epoch(*phases, 1, stalls.Rule(floor=0.06))["prep_stall_s"]
    assert doubtful["verdict"] == "inconclusive"


def test_a_stall_is_held_against_the_noise_of_the_phase_without_it():
    """Of which two measurements differ by so much: not a share of an epoch that is all waiting."""
    phases = timed(0.0009, 1e-6), timed(0.001, 1e-6, 2), timed(0.010, 1e-5, 4)

    found = stalls.epoch(*phases, 1, stalls.Rule(floor=1.2))
    assert found["fetch_stall_s"]["verdict"] == "stall"
    assert found["fetch_stall_s"]["floor"] == pytest.approx(0.12, rel=0.01)
    twice = stalls.epoch(*phases, 1, stalls.Rule(floor=12.0))["fetch_stall_s"]
    assert twice["verdict"] == "inconclusive"


def test_the_noise_floor_is_what_two_equal_measurements_differ_by():
    assert stalls.noise_floor(timed(0.005, 1e-7, 1), timed(0.005, 1e-7, 2)) < 1e-3
    assert stalls.noise_floor(timed(0.0053, 1e-7, 1), timed(0.005, 1e-7, 2)) == pytest.approx(
        0.06, abs=0.001
    )


def test_rounds_to_settle_it_grow_with_the_square_of_what_the_interval_must_shrink():
    def needed(value, half, floor=0.0):
        return stalls.rounds_needed(Interval(value, value - half, value + half), 3, floor)

    assert needed(0.05, 0.06) == 12
    assert needed(0.00, 0.04) == 12
    assert needed(0.05, 0.031) == 5  # never fewer than half as many again
    assert needed(0.019, 0.05) is None  # at the limit itself: no number of rounds settles it
    assert needed(0.021, 0.05) is None
    assert needed(0.05, 0.05, floor=0.08) is None
