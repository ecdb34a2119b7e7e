"""95 % intervals cover a pipeline simulator's truth in 95 % of profiles; no stall is made up.

The simulator (truth.py) is not the predictor's. Seeds: the intervals were tuned on pipelines 7,000
to 7,059 (and single ones with seeds 5 and 99); the checks below use 53,000 and up, never looked at
in tuning. Truths and runs have seeds of their own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import truth

from dsanalyzer import rates, stalls

CHECK_SEEDS = 53_000
STALL_FREE_SEEDS = 67_000
EPOCHS = 3  # steady ones: what `profile` measures by default


@dataclass
class Tally:
    """How many intervals covered their truth, and which verdicts came out."""

    covered: Counter[str] = field(default_factory=Counter)
    intervals: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    stall_free: Counter[str] = field(default_factory=Counter)  # the truth is below the threshold
    false: Counter[str] = field(default_factory=Counter)  # and the verdict a stall

    def add(self, name: str, interval: dict[str, float], true: float) -> None:
        self.intervals[name] += 1
        self.covered[name] += interval["low"] <= true <= interval["high"]

    def share(self, name: str) -> float:
        return self.covered[name] / self.intervals[name]


def tallied(first_seed: int, pipelines: int, runs: int, *, with_stalls: bool) -> Tally:
    tally = Tally()
    for seed in range(first_seed, first_seed + pipelines):
        pipeline = truth.drawn(seed, stalls=with_stalls)
        true = {
            name: truth.true_s(phase, seed + 10**6, runs=3000)
            for name, phase in (
                ("ingestion", pipeline.ingestion()),
                ("delivery", pipeline.delivery()),
                ("prep", pipeline.prep()),
                ("fetch", pipeline),
            )
        }
        recorded = truth.experiment(pipeline, runs, seed + 2 * 10**6, epochs=EPOCHS)
        random = np.random.default_rng(seed + 3 * 10**6)
        for run in range(runs):
            phases = {name: passes[run] for name, passes in recorded.items()}
            _judge(phases, pipeline, true, tally, random)
    return tally


def _judge(phases, pipeline, true, tally, random):
    """One profile's intervals and verdicts, as result.build makes them."""
    timed = rates.time_phases(phases, 2 * pipeline.workers, random)
    halves = {"one": phases["ingestion"][:3], "two": phases["ingestion"][3:]}
    first = rates.time_phases(halves, 2 * pipeline.workers, random)
    floor = stalls.noise_floor(first["one"], first["two"])
    epoch = stalls.epoch(
        timed["ingestion"],
        timed["prep"],
        timed["fetch"],
        1,
        stalls.Rule(floor),
        timed["delivery"],
    )
    tally.add("epoch time", epoch["time_s"], true["fetch"])
    tally.add("compute", epoch["compute_s"], true["ingestion"])
    tally.add("delivery", epoch["delivery_s"], true["delivery"] - true["ingestion"])
    for name, slow, fast in (("prep", "prep", "delivery"), ("fetch", "fetch", "prep")):
        stall, size = epoch[f"{name}_stall_s"], true[slow] - true[fast]
        tally.verdicts[name, stall["verdict"]] += 1
        if size < stalls.THRESHOLD * true["fetch"]:
            tally.stall_free[name] += 1
            tally.false[name] += stall["verdict"] == "stall"
        # An interval that may not go below zero covers a stall of zero more often than 95 %.
        small = " (small)" if size < 0.03 * true["fetch"] else ""
        tally.add(f"{name} stall{small}", stall, size)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    tally = tallied(CHECK_SEEDS, pipelines=25, runs=8, with_stalls=True)

    for name in ("epoch time", "compute", "delivery", "prep stall", "fetch stall"):
        assert 0.89 <= tally.share(name) <= 0.995, (name, tally)


@pytest.mark.slow
def test_intervals_cover_the_truth_in_93_to_97_percent_of_1440_profiles():
    tally = tallied(CHECK_SEEDS + 1000, pipelines=180, runs=8, with_stalls=True)

    for name in ("epoch time", "prep stall", "fetch stall"):
        assert tally.intervals[name] >= 1000
        assert 0.93 <= tally.share(name) <= 0.97, (name, tally)
    for name in ("prep stall (small)", "fetch stall (small)"):
        # Few, and most of two stages almost equally fast, whose waits are rare and come together.
        assert tally.share(name) >= 0.87, (name, tally)


def test_a_job_without_stalls_is_hardly_ever_said_to_have_one():
    tally = tallied(STALL_FREE_SEEDS, pipelines=25, runs=8, with_stalls=False)

    for name in ("prep", "fetch"):
        assert tally.stall_free[name] >= 150
        assert tally.false[name] <= 0.02 * tally.stall_free[name], tally


@pytest.mark.slow
def test_no_false_stall_in_more_than_2_percent_of_1200_profiles():
    tally = tallied(STALL_FREE_SEEDS + 1000, pipelines=150, runs=8, with_stalls=False)

    for name in ("prep", "fetch"):
        assert tally.stall_free[name] >= 1000
        assert tally.false[name] <= 0.02 * tally.stall_free[name], tally
        assert tally.verdicts[name, "none"] >= 0.5 * 1200, tally.verdicts


def test_the_simulator_knows_its_own_limits():
    """Where one stage is far slower, its truth is that stage's mean."""
    even = truth.Pipeline(0.05, 0.04, workers=4, steps=200)
    assert truth.true_s(even, 1, 500) * truth.BATCH == pytest.approx(0.05, rel=0.03)
    prep = truth.Pipeline(0.01, 0.4, workers=4, steps=200)
    assert truth.true_s(prep, 1, 500) * truth.BATCH == pytest.approx(0.1, rel=0.05)
    disk = truth.Pipeline(0.01, 0.04, fetch_s=0.2, miss=(0.5, 0.5), steps=200)
    assert truth.true_s(disk, 1, 500) * truth.BATCH == pytest.approx(0.1, rel=0.03)
