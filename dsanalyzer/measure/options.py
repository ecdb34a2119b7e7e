"""What to measure, and under which conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dsanalyzer import stalls

MOST_WORKERS = 1024


@dataclass(frozen=True)
class Options:
    """Checked when it is made; raises ValueError.

    Args:
        policy: "lru" or "never-evict", how the emulated page cache behaves in the fetch phase.
        cached_fraction: share of the data set's bytes it may hold, 0 to 1.
        storage_bytes_per_s: limit the job's reads; None leaves storage as it is.
        gpu_rate: samples/s of an emulated accelerator; None measures the real one.
        gpu_trace: seconds per sample of recorded steps, which it then takes by turns.
        budget_s: seconds the profile should take at most.
        samples: samples to measure on; all, when that is most of the data set.
        rounds: interleaved blocks of ingestion and prep.
        block_s: seconds of each ingestion block.
        epochs: fetch passes, the first of them cold.
            Where samples, rounds or epochs are None the budget decides.
        seed: of the order of samples and of the bootstrap.
        divert: whether checkpoints the job writes go elsewhere.
        sweep: numbers of workers with which prep alone is measured besides the job's own.
        threshold: share of the epoch below which a stall is of no relevance, above 0 and below 1.
        patience_s: seconds of silence after which the job is taken to hang.
    """

    policy: str = "lru"
    cached_fraction: float = 0.5
    storage_bytes_per_s: float | None = None
    gpu_rate: float | None = None
    gpu_trace: tuple[float, ...] = ()
    budget_s: float = 180.0
    samples: int | None = None
    rounds: int | None = None
    block_s: float = 2.0
    epochs: int | None = None
    seed: int = 0
    divert: bool = True
    sweep: tuple[int, ...] = ()
    threshold: float = stalls.THRESHOLD
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        if self.policy not in ("lru", "never-evict"):
            raise ValueError(f"policy is {self.policy!r}; choose lru or never-evict")
        if not 0 <= self.cached_fraction <= 1:
            raise ValueError(
                f"cached fraction is {self.cached_fraction}; give 0 to 1, or 0% to 100%"
            )
        for name in ("storage_bytes_per_s", "gpu_rate", "block_s", "budget_s", "patience_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; give a positive number")
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"threshold is {self.threshold}; give a share of the epoch, such as 2%"
            )
        if any(not 1 <= workers <= MOST_WORKERS for workers in self.sweep):
            raise ValueError(f"numbers of workers to sweep over must be 1 to {MOST_WORKERS}")
        least = {"samples": 1, "rounds": 1, "epochs": 2}
        if any((getattr(self, name) or low) < low for name, low in least.items()):
            raise ValueError("samples and rounds must be at least 1, epochs at least 2")
