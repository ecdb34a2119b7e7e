"""Rates in samples/s with 95 % intervals, from the step times of passes."""

from __future__ import annotations

from collections.abc import Sequence
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


def time_per_sample(
    passes: Sequence[dict[str, Any]], block_steps: int, random: np.random.Generator
) -> tuple[float, Floats]:
    """Mean seconds per sample over passes, and bootstrap draws of it.

    The mean is a ratio of sums: bursty loaders make one step in `num_workers` pay for the others.
    Blocks of at least `block_steps` consecutive steps keep that burst together; each is redrawn
    from its neighbourhood in its own pass, because under LRU a step's cost depends on its position
    in the epoch; passes are redrawn among themselves when there are several.

    Source: local block bootstrap, Paparoditis and Politis, C. R. Acad. Sci. Paris 335 (2002).
    """
    total_s = sum(p["wall_s"] for p in passes)
    samples = sum(p["samples"] for p in passes)
    blocks = [_blocks(np.asarray(p["steps_s"]), block_steps) for p in passes]
    per_pass = np.stack([_redraw(b, random) for b in blocks])  # (passes, DRAWS) seconds
    if len(passes) > 1:
        chosen = random.integers(len(passes), size=(len(passes), DRAWS))
        counts = np.array([p["samples"] for p in passes])[chosen]
        draws = np.take_along_axis(per_pass, chosen, axis=0).sum(0) / counts.sum(0)
    else:
        draws = per_pass[0] / samples
    return total_s / samples, draws


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
    return Interval.of(row["samples_per_s"], draws)


def rate(seconds: float, draws: Floats, how: str) -> dict[str, Any]:
    """Samples/s from seconds per sample, as the result file holds it."""
    interval = Interval.of(1 / seconds, 1 / draws)
    return {**interval.json(), "unit": "samples/s", "how": how}
