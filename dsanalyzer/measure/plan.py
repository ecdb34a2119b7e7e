"""How much to measure within the time allowed: samples, rounds and epochs of one profile.

What was asked for is kept; what was left open is made as large as the budget allows, samples first
(a pass must be long against the prefetch window), then epochs and rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WINDOWS = 8  # a pass should be so many prefetch windows long
MOST_SAMPLES = 2048
MOST_ROUNDS, FEWEST_ROUNDS = 3, 2
MOST_EPOCHS, FEWEST_EPOCHS = 4, 2
STORAGE_S = 6.0  # the tool's own reads
BLOCKS = 3  # of ingestion in a round: alone, out of workers, beside a load
ON_A_GPU = 1  # more: from pinned memory
INGESTION_STEPS = (20, 400)  # fewest and most per block


def drains(rounds: int) -> int:
    """Passes of the loader alone: as many as of the loader with training, and at least two."""
    return max(2, rounds)


@dataclass(frozen=True)
class Asked:
    """What the user fixed; None leaves it to the plan."""

    samples: int | None = None
    rounds: int | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Speeds:
    """What is known before measuring, in samples/s; 0 where nothing is.

    Args:
        loader: what the loader delivered in a short probe.
        step: what the accelerator takes, where it is emulated.
        storage: cold reads, where they are held to a rate.
        hits: share of reads that later epochs find cached.
        sweep: numbers of workers to measure besides, over the loader's own.
        start_s: seconds until the job was known: interpreter, imports, first steps. Paid twice.
    """

    loader: float
    step: float = 0.0
    storage: float = 0.0
    hits: float = 0.0
    start_s: float = 0.0
    sweep: tuple[float, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Over `samples` samples: `rounds` of ingestion and prep, `epochs` of fetch."""

    samples: int
    rounds: int
    epochs: int
    block_s: float

    def seconds(self, speeds: Speeds) -> float:
        """What it should take, both runs together."""
        return 2 * speeds.start_s + STORAGE_S + self.rates_s(speeds) + self.fetch_s(speeds)

    def rates_s(self, speeds: Speeds) -> float:
        """Of the first run, its start left out."""
        prep_s = self._pass_s(speeds.loader, speeds.step)
        drain_s = self._pass_s(speeds.loader, 0.0)
        swept_s = sum(drain_s / min(1.0, share) for share in speeds.sweep)  # more are no slower
        return (
            (BLOCKS * self.rounds + 1) * self.block_s
            + self.rounds * prep_s
            + drains(self.rounds) * drain_s
            + swept_s
        )

    def fetch_s(self, speeds: Speeds) -> float:
        """Of the second run."""
        cold_s = self._pass_s(speeds.loader, speeds.step, speeds.storage)
        reads = speeds.storage / max(1e-9, 1 - speeds.hits)
        later_s = self._pass_s(speeds.loader, speeds.step, reads)
        return self.epochs * self.block_s + cold_s + (self.epochs - 1) * later_s

    def _pass_s(self, *rates: float) -> float:
        known = [rate for rate in rates if rate > 0]
        return self.samples / min(known) if known else 0.0

    def steps(self, batch: int) -> int:
        """Training steps that the longer of the two runs takes, at most."""
        a_pass = -(-self.samples // max(1, batch))
        ingestion = INGESTION_STEPS[1]
        first = ((BLOCKS + ON_A_GPU) * self.rounds + 1) * ingestion + self.rounds * a_pass
        return max(first, self.epochs * (ingestion + a_pass)) + 10


def make(
    budget_s: float, block_s: float, asked: Asked, speeds: Speeds, window: int, available: int
) -> Plan:
    """The largest plan that fits, or the smallest there is where none does.

    Args:
        window: samples the loader prefetches (workers x prefetch factor x batch size).
        available: samples there are.
    """
    most = asked.samples or max(MOST_SAMPLES, WINDOWS * window)
    least = asked.samples or min(most, WINDOWS * window)
    # A little less than all is all: a cache sized for a data set is to meet the whole of it.
    most = available if most >= 0.8 * available else most
    plan = Plan(most, asked.rounds or MOST_ROUNDS, asked.epochs or MOST_EPOCHS, block_s)
    for rounds, epochs in ((MOST_ROUNDS, MOST_EPOCHS), (MOST_ROUNDS, 3), (FEWEST_ROUNDS, 3)):
        plan = replace(plan, rounds=asked.rounds or rounds, epochs=asked.epochs or epochs)
        fitting = _fitting(plan, budget_s, speeds, min(least, most), most)
        if fitting is not None:
            return fitting
    smallest = replace(
        plan,
        samples=min(least, most),
        rounds=asked.rounds or FEWEST_ROUNDS,
        epochs=asked.epochs or FEWEST_EPOCHS,
    )
    return smallest


def _fitting(plan: Plan, budget_s: float, speeds: Speeds, least: int, most: int) -> Plan | None:
    """`plan` with as many samples as fit; None where `least` do not."""
    if plan.seconds(speeds) <= budget_s:
        return plan
    fixed = replace(plan, samples=0).seconds(speeds)
    per_sample = (plan.seconds(speeds) - fixed) / most
    fit = int((budget_s - fixed) / per_sample)
    return replace(plan, samples=fit) if fit >= least else None
