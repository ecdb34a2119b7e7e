"""Rates in samples/s with 95 % intervals, from the step times of passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
NEIGHBOURHOOD = 3  # a block may be replaced by one at most this many blocks away
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: Floats) -> Interval:
        low, high = np.quantile(draws, (0.025, 0.975))
        return cls(float(value), float(min(low, value)), float(max(high, value)))

    def json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Timed:
    """Seconds per sample over the passes of a phase, and draws of what they might have been.

    `error` is their standard error, known with so many degrees of `freedom`.
    """

    value: float
    draws: Floats
    error: float
    freedom: float

    @classmethod
    def of(cls, value: float, error: float, freedom: float, random: np.random.Generator) -> Timed:
        """Draws on a logarithmic scale: times are positive and skewed to the right."""
        relative = error / value * random.standard_t(freedom, DRAWS)
        return cls(value, value * np.exp(np.clip(relative, -3, 3)), error, freedom)

    def minus(self, other: Timed) -> Floats:
        """Draws of the difference, with the degrees of freedom both have together.

        Subtracting draws from draws would count the doubt about each variance twice.

        Source: Welch, Biometrika 34 (1947).
        """
        ours, theirs = self.error**2, other.error**2
        shares = ours**2 / self.freedom + theirs**2 / other.freedom
        freedom = (ours + theirs) ** 2 / shares if shares > 0 else 1.0
        student = np.random.default_rng(0).standard_t(max(1.0, freedom), DRAWS)
        drawn: Floats = self.value - other.value + np.sqrt(ours + theirs) * student
        return drawn


def time_phases(
    phases: Mapping[str, Sequence[dict[str, Any]]], block_steps: int, random: np.random.Generator
) -> dict[str, Timed]:
    """Mean seconds per sample of each phase's passes, with draws that hold 95 % intervals.

    The mean is a ratio of sums: bursty loaders make one step in `num_workers` pay for the others.
    Two things vary. Within a pass: blocks of steps against the same blocks of the other passes, so
    that what belongs to a position (filling the queue, hits early in an LRU epoch) is not taken for
    noise; neighbours may be correlated. Between passes: a machine's pace from minute to minute,
    which no block sees, pooled over all phases, because one phase has few passes. Draws follow
    Student's t with the degrees of freedom that both estimates have together (Satterthwaite). A
    phase of one pass has nothing to be held against: its blocks are redrawn from their
    neighbourhood.

    Sources: Satterthwaite, Biometrics 2 (1946). Local block bootstrap: Paparoditis and Politis,
    C. R. Acad. Sci. Paris 335 (2002).
    """
    within = {name: _within(passes, block_steps, random) for name, passes in phases.items()}
    between, freedom = _between(phases, within)
    found = {}
    for name, passes in phases.items():
        value = sum(p["wall_s"] for p in passes) / sum(p["samples"] for p in passes)
        own, own_freedom = within[name]
        total = own + between
        joint = total**2 / (own**2 / own_freedom + between**2 / freedom) if total > 0 else 1.0
        error = value * float(np.sqrt(total / len(passes)))
        found[name] = Timed.of(value, error, max(1.0, joint), random)
    return found


def _within(
    passes: Sequence[dict[str, Any]], block_steps: int, random: np.random.Generator
) -> tuple[float, float]:
    """Variance of one pass's mean over its square, from its blocks; and degrees of freedom."""
    blocks = [_blocks(np.asarray(p["steps_s"]), block_steps) for p in passes]
    count = min(len(b) for b in blocks)
    if len(blocks) == 1:
        redrawn = _redraw(blocks[0], random) / blocks[0].sum()
        return float(np.var(redrawn)), max(1.0, count - 1)
    rows = np.stack([b[:count] for b in blocks])
    left = rows / rows.mean() - rows.mean(0) / rows.mean()  # (passes, blocks), mean 0
    squares = float((left**2).sum())
    neighbours = float((left[:, 1:] * left[:, :-1]).sum())
    # Negative correlation, as of workers that take turns, is believed down to a quarter.
    total = max(squares + 2 * neighbours, squares / 4)
    freedom = (len(blocks) - 1) * count / 2.2  # what its scatter over runs says (tests/truth.py)
    return total / (len(blocks) - 1) / count**2, max(1.0, freedom)


def _between(
    phases: Mapping[str, Sequence[dict[str, Any]]], within: dict[str, tuple[float, float]]
) -> tuple[float, float]:
    """Variance of a pass's own pace over its square, pooled over phases; degrees of freedom.

    The pace that makes the passes differ as much as they do, each phase counting as much as its
    own noise lets it (Paule and Mandel, J. Res. Nat. Bur. Stand. 87 (1982)). The target is the
    median of chi-squared, not its mean, which half of the time would be too little.
    """
    seen: list[tuple[float, float, int]] = []
    for name, passes in phases.items():
        if len(passes) > 1:
            means = np.array([p["wall_s"] / p["samples"] for p in passes])
            relative = float(np.var(means, ddof=1) / means.mean() ** 2)
            seen.append((relative, within[name][0], len(passes) - 1))
    freedom = sum(count for _, _, count in seen)
    if not freedom:
        return 0.0, 1.0

    def excess(between: float) -> float:
        return sum(n * r / max(w + between, 1e-300) for r, w, n in seen) - (freedom - 2 / 3)

    low, high = 0.0, max(r for r, _, _ in seen) * (freedom + 1)
    if excess(low) <= 0:
        return 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    # A phase whose own noise drowns the pace has told nothing of it.
    told = sum(n * (high / (w + high)) ** 2 for _, w, n in seen)
    return high, max(1.0, told)


def _blocks(steps_s: Floats, block_steps: int) -> Floats:
    """Seconds per block; the remainder is spread so that nothing is lost."""
    count = max(1, len(steps_s) // max(1, block_steps))
    return np.array([part.sum() for part in np.array_split(steps_s, count)])


def _redraw(blocks: Floats, random: np.random.Generator) -> Floats:
    n = len(blocks)
    offsets = random.integers(-NEIGHBOURHOOD, NEIGHBOURHOOD + 1, size=(DRAWS, n))
    positions = np.clip(np.arange(n) + offsets, 0, n - 1)
    total: Floats = blocks[positions].sum(1)
    return total


def mean_rate(row: dict[str, Any], random: np.random.Generator) -> Interval:
    """Samples/s of a storage measurement, its interval from equal slices of the run."""
    parts = np.asarray(row["slices"])
    draws = parts[random.integers(len(parts), size=(DRAWS, len(parts)))].mean(1)
    # A machine busy elsewhere leaves slices in which nothing was read: slow, but not a rate of 0.
    return Interval.of(row["samples_per_s"], np.maximum(draws, row["samples_per_s"] / 100))


def rate(timed: Timed, how: str) -> dict[str, Any]:
    """Samples/s from seconds per sample, as the result file holds it."""
    interval = Interval.of(1 / timed.value, 1 / timed.draws)
    return {**interval.json(), "unit": "samples/s", "how": how}
