"""From a profile to what the simulator needs, and how far the simulator is off on that profile.

Costs per sample come from the profile's own passes: core seconds of prep from the drain (the loader
alone), scaled to what they are beside the training, of the training process from ingestion, of
reading from the fetch passes, the spread of minibatches from the drain's steps. The simulator is
then run at the settings that were measured (all in memory, the steady epochs, nothing in memory);
measured over simulated stall is kept by miss rate and applied to every prediction of the job's own
loader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsanalyzer.measure.throttle import NEARLY
from dsanalyzer.predict import model
from dsanalyzer.predict.change import Change
from dsanalyzer.predict.setup import Setup
from dsanalyzer.predict.simulate import Simulated, simulate
from dsanalyzer.ranks import readers
from dsanalyzer.report.document import Result

SATURATED = 0.9  # share of the cores in use from which on they are what prep is bound by
MOST_SPREAD = 1.0
READ_AHEAD_BYTES = 64 << 20  # coordl fetches so far ahead of prep
LEAST_MISSED = 0.1  # share of the samples; what fewer of them cost is lost in the noise
PREP_BY = (0.7, 1.5)  # how much faster or slower prep may be beside a training
CORRECTION = (0.5, 2.0)  # measured over simulated; beyond it the simulator does not know the job
LEAST_STALL = 0.02  # of an epoch; less of it tells nothing of how wrong it is


def setup_of(result: Result) -> Setup:
    """The job as it was profiled."""
    loader, rates = result["loader"], result["rates"]
    ranks = loader.get("ranks", 1)
    cores, workers = result["machine"]["cores"], loader["num_workers"] * ranks
    prep_s, blocked_s = _prep_cost(result, cores, workers)
    gpu_rate, host_s, host_cores = _step_cost(result, cores)
    policy, fraction = model.effective_cache(result)
    return Setup(
        samples=result["dataset"].get("measured_samples") or result["dataset"]["samples"],
        batch_size=loader.get("batch_size") or 1,
        workers=workers,
        ranks=ranks,
        prefetch_factor=loader.get("prefetch_factor") or 2,
        gpu_rate=gpu_rate,
        host_s=host_s,
        host_cores=host_cores,
        prep_s=prep_s,
        blocked_s=blocked_s,
        read_s=_read_cost(result),
        prep_table=tuple(
            (one["workers"] * ranks, one["value"]) for one in result.get("prep_by_workers") or ()
        ),
        spread=_spread(result, loader["num_workers"]),
        storage=_storage_table(result, rates["S"]["value"]),
        limited=_is_limit(result),
        latency_s=result.get("storage_latency_s") or 0.0,
        burst_s=0.0 if result["options"].get("storage_method") == "pacing" else Setup.burst_s,
        cores=cores,
        policy=policy,
        cached_fraction=fraction,
        staged=bool(loader["holds_cache"]),
    )


def _passes(result: Result, phase: str) -> list[Any]:
    return [one for one in result.get("passes", []) if one["phase"] == phase]


def _cpu_s(passes: list[Any]) -> float | None:
    """Core seconds per sample over passes; None where they were not counted."""
    if not passes or any(one.get("cpu_s") is None for one in passes):
        return None
    return float(sum(one["cpu_s"] for one in passes) / sum(one["samples"] for one in passes))


def _read_cost(result: Result) -> float:
    """Core seconds that a sample takes the job longer from storage than from memory."""
    fetch = [one for one in _passes(result, "fetch") if one["epoch"]] or _passes(result, "fetch")
    from_storage, from_memory = _cpu_s(fetch), _cpu_s(_passes(result, "prep"))
    if from_storage is None or from_memory is None:
        return 0.0
    samples = sum(one["samples"] for one in fetch)
    missed = sum(one["read_bytes"] for one in fetch) / read_bytes(result) / samples
    return max(0.0, from_storage - from_memory) / missed if missed > LEAST_MISSED else 0.0


def _prep_cost(result: Result, cores: int, workers: int) -> tuple[float, float]:
    """Core seconds of prep per sample, and what a worker waits beside them."""
    prep = result["rates"]["P"]["value"] or math.inf
    occupied = max(1, workers) / prep  # of a worker, per sample
    drains = _passes(result, "drain")
    counted = _cpu_s(drains)
    if counted is not None:  # waiting for a core is wanting one, whoever else had it
        queued = sum(one.get("queued_s", 0.0) for one in drains)
        counted += queued / sum(one["samples"] for one in drains)
    most = min(occupied, cores / prep)
    core_s = most if counted is None else min(counted, most)
    if workers > cores and core_s >= SATURATED * most:
        return most, 0.0  # what workers waited for was a core
    return max(core_s, 1e-9), max(0.0, occupied - core_s)


def _step_cost(result: Result, cores: int) -> tuple[float, float, float]:
    """Rate of the accelerator, core seconds per sample of the training process, cores it uses."""
    gpu = result["rates"]["G"]["value"] or math.inf
    passes = _passes(result, "ingestion")
    counted = _cpu_s(passes)
    if result.get("emulated") or result["machine"].get("gpu"):
        return gpu, min(counted or 0.0, 1 / gpu), 1.0
    # No accelerator: the training process computes on the cores that prep also wants.
    width = 1.0 if counted is None else max(1.0, min(float(cores), counted * gpu))
    return math.inf, width / gpu, width


def _spread(result: Result, workers: int) -> float:
    """Standard deviation over mean of a minibatch's prep, from sums over one minibatch a worker."""
    block = max(1, workers)
    sums = [
        sum(one["steps_s"][start : start + block])
        for one in _passes(result, "drain")
        for start in range(0, len(one["steps_s"]) // block * block, block)
    ]
    if len(sums) < 4:
        return 0.0
    return min(MOST_SPREAD, float(np.std(sums) / np.mean(sums)) * math.sqrt(block))


def _storage_table(result: Result, at_workers: float | None) -> tuple[tuple[int, float], ...]:
    table = {row["queue_depth"]: row["samples_per_s"] for row in result["storage"]}
    if at_workers:
        table.setdefault(readers(dict(result["loader"])), at_workers)
    return tuple(sorted((depth, rate) for depth, rate in table.items() if rate > 0))


def _is_limit(result: Result) -> bool:
    """Whether what storage was held to is what it gave: else the disk itself was slower."""
    options, loader = result["options"], dict(result["loader"])
    held = options.get("storage_bytes_per_s")
    if held is None or options.get("storage_method") == "pacing":  # which is a queue, as a disk is
        return False
    at_readers = [row for row in result["storage"] if row["queue_depth"] == readers(loader)]
    least = NEARLY * held / read_bytes(result)
    return any(row["samples_per_s"] >= least for row in at_readers or result["storage"])


def read_bytes(result: Result) -> float:
    """Bytes of storage that a sample takes, of whole pages where the result says so."""
    data = result["dataset"]
    return float(data.get("mean_read_bytes") or data["mean_item_bytes"])


def changed(
    setup: Setup, change: Change, result: Result, loader_rates: dict[str, Any] | None
) -> Setup:
    """`setup` after `change`.

    `result` says how large items are; `loader_rates` is what `coordl rates` wrote, needed for
    coordl.
    """
    item_bytes = result["dataset"]["mean_item_bytes"]
    new: dict[str, Any] = {}
    if change.loader:
        assert loader_rates is not None
        threads = loader_rates["threads"]
        new |= {
            "policy": "never-evict",
            "staged": True,
            "workers": threads,
            "prefetch_factor": max(
                setup.prefetch_factor,
                math.ceil(READ_AHEAD_BYTES / (item_bytes * setup.batch_size * threads)),
            ),
            "prep_s": min(threads, setup.cores) / loader_rates["prep_rate"]["value"],
            "blocked_s": 0.0,
            "prep_table": (),
            "spread": 0.0,
        }
    if change.policy is not None:
        new["policy"] = change.policy
    if change.cached_fraction is not None:
        new["cached_fraction"] = change.cached_fraction
    if change.loader:
        fraction = new.get("cached_fraction", setup.cached_fraction)
        new["cached_fraction"] = fraction / expansion(loader_rates)
    if change.cores is not None:
        new["cores"] = change.cores
        if change.workers is None:  # as many more workers, so that the cores are used
            grown = math.ceil(new.get("workers", setup.workers) * change.cores / setup.cores)
            new["workers"] = max(1, grown)
    if change.workers is not None:
        new["workers"] = change.workers * setup.ranks
        if not change.loader and (rate := setup.measured_prep(new["workers"])) is not None:
            occupied = new["workers"] / rate  # of a worker, per sample
            new["prep_s"] = min(setup.prep_s, occupied)
            new["blocked_s"] = occupied - new["prep_s"]
            if new["workers"] > setup.cores:
                new["prep_s"], new["blocked_s"] = setup.cores / rate, 0.0
    if change.storage_bytes_per_s is not None:
        rate = change.storage_bytes_per_s / read_bytes(result)
        new |= {"storage": ((1, rate),), "limited": setup.burst_s > 0}
    if (faster := gpu_factor(change, setup)) != 1.0:
        new |= {"gpu_rate": setup.gpu_rate * faster}
        if math.isinf(setup.gpu_rate):
            new |= {"host_s": setup.host_s / faster}
        elif change.gpus:  # a training process for each
            new |= {"host_cores": setup.host_cores * change.gpus / setup.ranks}
    for name in ("jobs", "coordinated", "servers", "partitioned", "shared_storage"):
        if getattr(change, name) is not None:
            new[name] = getattr(change, name)
    if change.network_bytes_per_s is not None:
        new["network"] = change.network_bytes_per_s / item_bytes
    if change.coordinated:  # every job's workers fill the one staging area
        new["workers"] = new.get("workers", setup.workers) * (change.jobs or 1)
    return replace(setup, **new)


def gpu_factor(change: Change, setup: Setup) -> float:
    """On the ingestion rate, which is of all ranks that were profiled: a GPU each."""
    return (change.gpu_speedup or 1.0) * (change.gpus or setup.ranks) / setup.ranks


def expansion(loader_rates: dict[str, Any] | None) -> float:
    """Bytes of an item in the form that was measured over those of its file.

    The rates file says so in `expansion`; without it packed items are taken for 1.5 times the file.
    """
    rates = loader_rates or {}
    assumed = 1.5 if rates.get("form") == "packed" else 1.0
    return float(rates.get("expansion", assumed))


@dataclass(frozen=True)
class Correction:
    """Measured over simulated stall of one profile, by miss rate; linear between the points.

    Of the stall, not of the epoch: while the accelerator works there is nothing to be wrong about,
    and a factor found where data bound would be wrong where the accelerator does.
    """

    points: tuple[tuple[float, float], ...] = ()

    def at(self, misses: float) -> float:
        if not self.points:
            return 1.0
        x, y = zip(*sorted(self.points), strict=True)
        return float(np.clip(np.interp(misses, x, y), *CORRECTION))

    def factor(self, simulated: Simulated) -> float:
        """What to multiply the simulated speed with."""
        stall = _stall_share(simulated)
        return 1 / (1 - stall + stall * self.at(1 - simulated.hit_rate))


def _stall_share(simulated: Simulated) -> float:
    return min(1.0, max(0.0, 1 - simulated.busy["gpu"]))


def _from_memory(result: Result) -> float | None:
    """Samples/s of an epoch whose reads all hit, as measured; None where that is not known."""
    steady = result["steady"]
    if "compute_s" not in steady or not result["dataset"]["samples"]:
        return None
    seconds = steady["compute_s"]["value"] + steady["prep_stall_s"]["value"]
    seconds += steady["delivery_s"]["value"] if "delivery_s" in steady else 0.0
    return result["dataset"]["samples"] / seconds


def with_training(result: Result, setup: Setup) -> Setup:
    """`setup` whose prep is as slow as it was beside the training, not alone.

    The drain gives what prep costs while nobody trains. Beside a training it costs more (caches,
    memory, cores at a lower clock), and a factor on the whole speed would be wrong wherever prep
    is not what binds. So prep is scaled until an epoch from memory is simulated as fast as it was
    measured; where it does not bind there, nothing can be told of it, and it stays.
    """
    measured = _from_memory(result)
    if measured is None:
        return setup

    def slower(by: float) -> Setup:
        return replace(setup, prep_s=by * setup.prep_s, blocked_s=by * setup.blocked_s)

    def speed(by: float) -> float:
        whole = replace(slower(by), cached_fraction=1.0, policy="never-evict")
        return simulate(whole).speed

    low, high = PREP_BY
    if not speed(high) <= measured <= speed(low):
        return setup
    for _ in range(10):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if speed(middle) > measured else (low, middle)
    return slower(math.sqrt(low * high))


def correction_of(result: Result, setup: Setup) -> Correction:
    """How far off the simulator is at the settings that were measured."""
    steady = result["steady"]
    measured: list[tuple[Simulated, float]] = []
    if (from_memory := _from_memory(result)) is not None:
        whole = simulate(replace(setup, cached_fraction=1.0, policy="never-evict"))
        measured.append((whole, from_memory))
    measured.append((simulate(setup), steady["speed"]["value"]))
    cold = [e for e in result["epochs"] if e["epoch"] == 0 and "speed" in e]
    if cold:
        nothing = simulate(replace(setup, cached_fraction=0.0))
        measured.append((nothing, cold[0]["speed"]["value"]))
    points = []
    for simulated, speed in measured:
        stall = _stall_share(simulated)
        longer = simulated.speed / speed - 1  # of the simulated epoch
        by = 1 + longer / stall if stall > LEAST_STALL else 1.0
        points.append((1 - simulated.hit_rate, by))
    return Correction(tuple(points))
