"""What loading takes workers: a sample's costs, cores or storage, how many are enough."""

from __future__ import annotations

from dataclasses import dataclass

from dsanalyzer.report.document import Phase, Result
from dsanalyzer.report.units import milliseconds

KNEE = 0.05  # of the most workers can prepare, that is not worth more of them
MOST_OF_IT = 0.5  # of what a sample takes longer from storage, in the run queue: then it is that


@dataclass(frozen=True)
class SampleCost:
    """What a sample took a worker, in seconds: on a core, waiting for one, otherwise; of that,
    collating."""

    total_s: float
    core_s: float
    queued_s: float
    else_s: float
    collate_s: float


def sample_costs(result: Result, *, steady: bool = False) -> dict[Phase, SampleCost]:
    """By phase, where torch's workers could be watched: prep reads memory, fetch storage too.

    With `steady`, fetch without the first epoch.
    """
    costs: dict[Phase, SampleCost] = {}
    phases: tuple[Phase, ...] = ("prep", "fetch")
    for phase in phases:
        loaded = [
            p["loaded"]
            for p in result["passes"]
            if p["phase"] == phase and "loaded" in p and not (steady and p["epoch"] == 0)
        ]
        samples = sum(one["samples"] for one in loaded)
        if not samples:
            continue
        wall, core, queued, collate = (
            sum(one[name] for one in loaded) / samples  # type: ignore[literal-required]
            for name in ("wall_s", "cpu_s", "queued_s", "collate_s")
        )
        costs[phase] = SampleCost(wall, core, queued, max(0.0, wall - core - queued), collate)
    return costs


def workers_knee(result: Result) -> int | None:
    """The fewest workers whose prep is within 5 % of the fastest measured; None without a sweep."""
    swept = result.get("prep_by_workers") or []
    if len(swept) < 2:
        return None
    enough = (1 - KNEE) * max(one["value"] for one in swept)
    return next(one["workers"] for one in swept if one["value"] >= enough)


def contention(result: Result) -> str | None:
    """Where a fetch stall was found that is not storage's: the sentence that shows it; else None.

    A sample takes a worker longer from storage than from memory. Where most of that is spent
    runnable in the run queue, workers waited for cores.
    """
    costs = sample_costs(result, steady=True)
    stalled = result["steady"]["fetch_stall_s"]["verdict"] == "stall"
    if not stalled or not {"prep", "fetch"} <= costs.keys():
        return None
    longer = costs["fetch"].total_s - costs["prep"].total_s
    queued = costs["fetch"].queued_s - costs["prep"].queued_s
    if longer <= 0 or queued < MOST_OF_IT * longer:
        return None
    return (
        f"From storage a sample takes a worker {milliseconds(longer)} longer than from memory, and "
        f"{milliseconds(min(queued, longer))} of that it is ready to run and has no core: profile "
        "again on an otherwise idle machine, or with fewer workers or more cores. Faster storage "
        "or a larger cache would gain little."
    )
