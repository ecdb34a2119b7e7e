"""A training pipeline whose true stalls are known, for testing the intervals. Not the predictor's.

Written apart from dsanalyzer/predict: a recurrence over minibatches (when asked for, fetched,
prepared, taken, trained), for all runs of an experiment at once, one run per array element. What
varies: every minibatch (log-normal, correlated from one to the next), every pass (machines are not
equally fast from minute to minute), and misses (binomial, by position in the epoch as under LRU).
The truth of a phase is its mean over many runs of seeds of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

BATCH = 32


@dataclass(frozen=True)
class Pipeline:
    """Seconds per minibatch; `miss` at the start and at the end of an epoch."""

    compute_s: float
    prep_s: float
    fetch_s: float = 0.0  # of a minibatch that misses altogether, the disk alone
    workers: int = 4
    prefetch: int = 2
    steps: int = 64
    miss: tuple[float, float] = (0.0, 0.0)
    spread: float = 0.25  # of minibatches
    correlated: float = 0.4  # from one minibatch to the next
    passes_differ: float = 0.004  # standard deviation of a pass's own pace
    delivery_s: float = 0.0  # what taking a minibatch from a worker keeps the loop

    def ingestion(self) -> Pipeline:
        return replace(self, prep_s=0.0, fetch_s=0.0, delivery_s=0.0)

    def delivery(self) -> Pipeline:
        return replace(self, prep_s=0.0, fetch_s=0.0)

    def prep(self) -> Pipeline:
        return replace(self, fetch_s=0.0)


def one_pass(pipeline: Pipeline, runs: int, random: np.random.Generator) -> np.ndarray:
    """Step times of one pass, (runs, steps) float64 seconds."""
    p, shape = pipeline, (pipeline.steps, runs)
    pace = np.exp(random.normal(0, p.passes_differ, runs))
    prep_s = p.prep_s * pace * _uneven(p.spread, p.correlated, shape, random)
    loop_s = (
        (p.compute_s + p.delivery_s) * pace * _uneven(p.spread / 10, p.correlated, shape, random)
    )
    likely = np.linspace(*p.miss, p.steps)[:, None]
    fetch_s = p.fetch_s * pace * random.binomial(BATCH, np.broadcast_to(likely, shape)) / BATCH
    window = p.workers * p.prefetch
    disk = np.zeros(runs)
    prepared = np.zeros(shape)
    taken = np.zeros(shape)
    trained = np.zeros(shape)
    for i in range(p.steps):
        start = prepared[i - p.workers] if i >= p.workers else np.zeros(runs)
        if i >= window:
            start = np.maximum(start, taken[i - window])
        disk = np.where(fetch_s[i] > 0, np.maximum(disk, start) + fetch_s[i], disk)
        prepared[i] = np.where(fetch_s[i] > 0, disk, start) + prep_s[i]
        free = trained[i - 1] if i else np.zeros(runs)
        taken[i] = np.maximum(prepared[i], free)
        trained[i] = taken[i] + loop_s[i]
    return np.diff(trained, axis=0, prepend=np.zeros((1, runs))).T


def _uneven(spread: float, correlated: float, shape: tuple, random: np.random.Generator):
    """Log-normal factors of mean 1 along the first axis, correlated from row to row."""
    sigma = np.sqrt(np.log1p(spread**2))
    noise = random.normal(size=shape)
    for i in range(1, shape[0]):
        noise[i] = correlated * noise[i - 1] + np.sqrt(1 - correlated**2) * noise[i]
    return np.exp(sigma * noise - sigma**2 / 2)


def passes(steps_s: np.ndarray) -> list[list[dict]]:
    """(passes, runs, steps) as the profiler records them: a list of passes for each run."""
    return [
        [
            {"samples": BATCH * len(one), "wall_s": float(one.sum()), "steps_s": one.tolist()}
            for one in run
        ]
        for run in np.swapaxes(steps_s, 0, 1)
    ]


def experiment(
    pipeline: Pipeline, runs: int, seed: int, *, rounds: int = 3, epochs: int = 2
) -> dict[str, list[list[dict]]]:
    """What `runs` profiles of this pipeline would have recorded, by phase."""
    random = np.random.default_rng(seed)

    def phase(of: Pipeline, count: int) -> list[list[dict]]:
        return passes(np.stack([one_pass(of, runs, random) for _ in range(count)]))

    return {
        "ingestion": phase(pipeline.ingestion(), rounds + epochs + 1),
        "prep": phase(pipeline.prep(), rounds),
        "fetch": phase(pipeline, epochs),
        "delivery": phase(pipeline.delivery(), rounds),
    }


def true_s(pipeline: Pipeline, seed: int, runs: int = 20_000) -> float:
    """Seconds per sample, the mean over many runs."""
    random = np.random.default_rng(seed)
    return float(one_pass(pipeline, runs, random).sum(1).mean() / (BATCH * pipeline.steps))


def drawn(seed: int, *, stalls: bool = True) -> Pipeline:
    """A pipeline at random: stalls of every size and kind, or hardly any.

    Without stalls half of the jobs prepare a minibatch in at most 0.3 of a step's time, so that
    filling the queue is none either (below half a percent of a pass), and everything hits. The
    other half hide more behind their steps: workers busy up to 0.6 of the time and reads of up to
    half a step, in longer passes. What is left of a stall in those is small and true.
    """
    random = np.random.default_rng(seed)
    compute_s = random.uniform(0.02, 0.06)
    workers = int(random.choice([2, 4, 8]))
    load = random.uniform(0.4, 3.0) if stalls else random.uniform(0.05, 0.3) / workers
    fetch = random.uniform(0.5, 4.0) if stalls else 0.0
    hides = not stalls and seed % 2 == 1
    if hides:
        load, fetch = random.uniform(0.2, 0.6), random.uniform(0.0, 0.5)
    return Pipeline(
        compute_s=compute_s,
        prep_s=compute_s * workers * load,
        fetch_s=compute_s * fetch,
        workers=workers,
        steps=int(random.choice([64, 96, 128])) * (4 if hides else 1),
        miss=tuple(sorted(random.uniform(0.1, 1.0, 2))),
        spread=random.uniform(0.1, 0.35),
        correlated=random.uniform(0.0, 0.4),
        passes_differ=random.uniform(0.001, 0.008),
        delivery_s=compute_s * random.uniform(0.0, 0.1),
    )
