"""What loading takes workers: a sample's costs, cores or storage, how many are enough."""

from __future__ import annotations

from dataclasses import dataclass

from dsanalyzer.report.document import Loaded, Phase, Result
from dsanalyzer.report.units import milliseconds, seconds

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


@dataclass(frozen=True)
class PartCost:
    """What one part of preparing a sample took a worker, in seconds: reading memory, and storage
    too (None where no pass did)."""

    memory_s: float
    core_s: float
    storage_s: float | None


def _loaded(result: Result, phase: Phase, steady: bool) -> list[Loaded]:
    return [
        p["loaded"]
        for p in result["passes"]
        if p["phase"] == phase and "loaded" in p and not (steady and p["epoch"] == 0)
    ]


def sample_costs(result: Result, *, steady: bool = False) -> dict[Phase, SampleCost]:
    """By phase, where torch's workers could be watched: prep reads memory, fetch storage too.

    With `steady`, fetch without the first epoch.
    """
    costs: dict[Phase, SampleCost] = {}
    phases: tuple[Phase, ...] = ("prep", "fetch")
    for phase in phases:
        loaded = _loaded(result, phase, steady)
        samples = sum(one["samples"] for one in loaded)
        if not samples:
            continue
        wall, core, queued, collate = (
            sum(one[name] for one in loaded) / samples  # type: ignore[literal-required]
            for name in ("wall_s", "cpu_s", "queued_s", "collate_s")
        )
        costs[phase] = SampleCost(wall, core, queued, max(0.0, wall - core - queued), collate)
    return costs


def part_costs(result: Result) -> dict[str, PartCost]:
    """By name, where the data set shows its parts, the longest first."""
    found: dict[Phase, dict[str, tuple[float, float]]] = {}
    phases: tuple[Phase, ...] = ("prep", "fetch")
    for phase in phases:
        loaded = [one for one in _loaded(result, phase, steady=True) if one.get("parts")]
        samples = sum(one["samples"] for one in loaded)
        sums: dict[str, tuple[float, float]] = {}
        for one in loaded:
            for part in one["parts"]:
                wall, core = sums.get(part["name"], (0.0, 0.0))
                sums[part["name"]] = (
                    wall + part["wall_s"] / samples,
                    core + part["cpu_s"] / samples,
                )
        found[phase] = sums
    costs = {
        name: PartCost(wall, core, found["fetch"].get(name, (None,))[0])
        for name, (wall, core) in found["prep"].items()
    }
    return dict(sorted(costs.items(), key=lambda item: -item[1].memory_s))


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


def crowding(result: Result) -> str | None:
    """Where most of a prep stall is the training loop's own work, made slower by busy cores: the
    sentence that says so; else None."""
    steady = result["steady"]
    stall, longer = steady["prep_stall_s"], steady.get("interference_s")
    if stall["verdict"] != "stall" or longer is None:
        return None
    if longer["low"] <= 0 or longer["value"] < MOST_OF_IT * stall["value"]:
        return None
    least = min(longer["value"], stall["value"])
    return (
        f"{seconds(least)} of the prep stall of {seconds(stall['value'])} are the training loop's "
        f"own work: with every minibatch in time it takes that much longer beside "
        f"{steady.get('load_cores', 0.0):.1f} busy cores. More workers would not help; more cores, "
        "or prep that takes less of them, would."
    )
