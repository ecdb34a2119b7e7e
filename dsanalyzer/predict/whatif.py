"""What-if questions: the closed form and the simulator, each with one or more things changed."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, replace
from typing import Any, cast

from dsanalyzer.predict import model
from dsanalyzer.predict.calibrate import (
    Correction,
    changed,
    correction_of,
    expansion,
    gpu_factor,
    read_bytes,
    setup_of,
    with_training,
)
from dsanalyzer.predict.change import Change
from dsanalyzer.predict.setup import Setup, without
from dsanalyzer.predict.simulate import Simulated, simulate
from dsanalyzer.report.document import Result, Scenario, WhatIf

SCHEMA = "dsanalyzer.whatif/1"
AGREE = 0.02  # closed form and simulator this close: the closed form is shown
CAUSES = ("varying minibatches", "fetch and prep by turns in each worker", "a short queue")


@dataclass(frozen=True)
class Basis:
    """A profile made ready for questions: what is simulated, and how far off that was."""

    result: Result
    setup: Setup
    correction: Correction

    @classmethod
    def of(cls, result: Result) -> Basis:
        setup = with_training(result, setup_of(result))
        return cls(result, setup, correction_of(result, setup))


@dataclass(frozen=True)
class _Closed:
    """The closed form's answer: rates in samples/s of one job over all its servers."""

    rates: dict[str, float]
    hits: float
    speed: float | None  # None where there is no formula
    whole: float  # what low and high are around
    low: float
    high: float
    bound: str


def predict(
    result: Result | Basis,
    change: Change,
    loader_rates: dict[str, Any] | None,
    *,
    simulator: bool = True,
) -> Scenario:
    """One scenario. `loader_rates` is what `coordl rates` wrote, needed for loader="coordl".

    Without the simulator the closed form alone answers, where it has an answer; that is quick.

    Assumptions, each noted in the scenario: storage as fast as its rate; the job's own loader is
    off from the simulator as it was when measured; coordl overlaps fetch and prep fully.

    Raises:
        ValueError: coordl without its rates, or with those of another form.
    """
    basis = result if isinstance(result, Basis) else Basis.of(result)
    result = basis.result
    if change.loader and loader_rates is None:
        raise ValueError("predicting coordl needs its prep rate: run `coordl rates`")
    if change.form and (loader_rates or {}).get("form", "original") != change.form:
        raise ValueError(
            f"the rates are of {(loader_rates or {}).get('form', 'original')} items, not "
            f"{change.form}: run `coordl rates --form {change.form}`"
        )
    setup = changed(basis.setup, change, result, loader_rates)
    if change.loader and change.storage_bytes_per_s is None:
        deepest = max(setup.storage)
        setup = _with_storage(setup, deepest)
    closed = _closed_form(basis, setup, change, loader_rates)
    simulated = simulate(setup) if simulator or closed.speed is None else None
    if simulated is None:
        hits, factor = closed.hits, _share(result)
        shown = {"closed_form": closed.speed, "simulated": None, "shown": "closed form", "why": ""}
    else:
        hits = simulated.hit_rate if closed.speed is None or setup.jobs > 1 else closed.hits
        factor = 1.0 if change.loader else basis.correction.factor(simulated)
        shown = _choose(closed, simulated, factor, setup)
    by_formula = shown["shown"] == "closed form"
    speed = float(shown["closed_form" if by_formula else "simulated"] or 0.0)
    spread = [bound / closed.whole for bound in (closed.low, closed.high)]
    samples = result["dataset"]["samples"]
    scenario: dict[str, Any] = {
        "name": change.name,
        "changes": change.asked,
        "rates": closed.rates,
        "policy": setup.policy,
        "cached_fraction": setup.cached_fraction,
        "hit_rate": hits,
        "peer_share": simulated.peer_share if simulated else None,
        "speed": {"value": speed, "low": speed * spread[0], "high": speed * spread[1]},
        "speedup": speed / result["steady"]["speed"]["value"],
        "epoch_s": samples / speed,
        "first_epoch_s": samples / (simulated.first_speed * factor) if simulated else None,
        "storage_bytes_per_epoch": (1 - hits) * samples * read_bytes(result),
        "bound_by": closed.bound if by_formula or not simulated else simulated.bound_by,
        "busy": simulated.busy if simulated else None,
        "model": shown,
        "notes": _notes(basis, change, setup, 1.0 if by_formula else factor, loader_rates),
    }
    return cast(Scenario, scenario)


def _with_storage(setup: Setup, row: tuple[int, float]) -> Setup:
    """Coordl's fetch threads keep the queue as deep as was measured."""
    return replace(setup, storage=(row,))


def _closed_form(
    basis: Basis, setup: Setup, change: Change, loader_rates: dict[str, Any] | None
) -> _Closed:
    result = basis.result
    rates: dict[str, Any] = dict(result["rates"])
    servers = setup.servers
    sharing = setup.jobs if not setup.coordinated else 1
    gpu = _scaled(rates["G"], gpu_factor(change, setup) * servers)
    prep = _scaled(_prep_rate(basis, setup, loader_rates), servers / sharing)
    storage = _storage(result, setup, change)
    disks = 1 if setup.shared_storage else servers
    hits = model.shared_hit_rates(setup.policy, setup.cached_fraction, servers, setup.partitioned)
    own, peers = hits or (0.0, 0.0)
    cache = rates["C"]["value"] or math.inf

    def fetch(key: str) -> float:
        storage_s = (1 - own - peers) / (storage[key] * disks)
        memory_s = (own / cache + peers / setup.network) / servers
        return 1 / max(1e-12, (storage_s + memory_s) * sharing)

    fetched = {key: fetch(key) for key in ("value", "low", "high")}
    speed, bound = model.speed(fetched["value"], prep["value"], gpu["value"])
    low, high = (min(fetched[k], prep[k], gpu[k]) for k in ("low", "high"))
    share = 1.0 if change.loader else _share(result)
    return _Closed(
        {
            "G": gpu["value"],
            "P": prep["value"],
            "S": storage["value"] * disks / sharing,
            "C": cache if math.isfinite(cache) else 0.0,
            "F": fetched["value"],
        },
        own + peers,
        speed * share if hits is not None else None,
        speed * share,
        low * share,
        high * share,
        bound,
    )


def _share(result: Result) -> float:
    """Of min(F, P, G) that the job's own loader reached when measured."""
    return min(1.0, 1 / (1 + result["model"]["error"])) if result["model"] else 1.0


def _prep_rate(basis: Basis, setup: Setup, loader_rates: dict[str, Any] | None) -> dict[str, float]:
    """P of one server: as many workers at once as there are cores for, each as measured."""
    was = basis.setup
    if setup.staged and loader_rates is not None:
        threads = loader_rates["threads"]
        rate, before = loader_rates["prep_rate"], min(threads, was.cores)
    else:
        rate, before = dict(basis.result["rates"])["P"], min(max(1, was.workers), was.cores)
    workers = max(1, setup.workers) * (1 if setup.coordinated else setup.jobs)
    if setup.cores == was.cores and (measured := setup.measured_prep(workers)) is not None:
        return _scaled(rate, measured / rate["value"])
    return _scaled(rate, min(workers, setup.cores) / before)


def _storage(result: Result, setup: Setup, change: Change) -> dict[str, float]:
    """S of one storage: the one asked for, or as measured at the queue depth the loader keeps."""
    if change.storage_bytes_per_s is not None:
        storage = setup.storage[0][1]
        return {"value": storage, "low": storage, "high": storage}
    if not change.loader:
        return {key: result["rates"]["S"][key] or 0.0 for key in ("value", "low", "high")}  # type: ignore[literal-required]
    deepest: dict[str, Any] = dict(max(result["storage"], key=lambda row: row["queue_depth"]))
    return {"value": deepest["samples_per_s"], "low": deepest["low"], "high": deepest["high"]}


def _scaled(rate: Any, by: float) -> dict[str, float]:
    return {key: rate[key] * by for key in ("value", "low", "high")}


def _choose(closed: _Closed, simulated: Simulated, factor: float, setup: Setup) -> dict[str, Any]:
    """Both answers, the one that is shown, and why where they differ."""
    found = simulated.speed * factor
    document = {"closed_form": closed.speed, "simulated": found, "shown": "simulator"}
    if closed.speed is None:
        return document | {
            "why": "no formula for a cache that evicts where each server reads another part in "
            "every epoch"
        }
    difference = found / closed.speed - 1
    if abs(difference) <= AGREE:
        return document | {"shown": "closed form", "why": "the simulator agrees"}
    words = f"the closed form says {closed.speed:.0f} samples/s: it leaves out "
    return document | {"why": words + _cause(closed.speed / factor, simulated.speed, setup)}


def _cause(closed: float, simulated: float, setup: Setup) -> str:
    """What the closed form leaves out that explains most of the difference."""
    if setup.jobs > 1 and not setup.coordinated:
        return "that jobs of different orders share one memory, one storage and the cores"
    if setup.servers > 1:
        return "that every step waits for the slowest server"
    gaps = {}
    for feature in CAUSES:
        idealised = without(setup, feature)
        if idealised != setup:
            gaps[feature] = abs(simulate(idealised).speed / closed - 1)
    best = min(gaps, key=lambda feature: gaps[feature], default="")
    if best and gaps[best] < 0.6 * abs(simulated / closed - 1):
        return best
    return "what the stages take from one another (cores, finite queues)"


def _notes(
    basis: Basis,
    change: Change,
    setup: Setup,
    factor: float,
    loader_rates: dict[str, Any] | None,
) -> list[str]:
    notes = []
    if change.loader:
        assert loader_rates is not None
        notes.append(f"prep rate measured by coordl itself with {loader_rates['threads']} threads")
        if (larger := expansion(loader_rates)) != 1.0:
            how = "measured" if "expansion" in loader_rates else "assumed"
            notes.append(f"items take {larger:.2f} times their file in memory ({how})")
    elif abs(factor - 1) > AGREE:
        notes.append(
            f"what the simulator says times {factor:.2f}, as far as it was off what was measured"
        )
    if change.cores is not None and change.workers is None:
        workers = f"{setup.workers} worker{'s' if setup.workers != 1 else ''}"
        notes.append(f"prep taken to scale with cores ({workers} to use them)")
    if change.gpus:
        now = f"{setup.ranks} now" if setup.ranks > 1 else "one now"
        notes.append(f"GPUs taken to train as many times as fast as there are more of them ({now})")
    if setup.jobs > 1:
        how = "prep once for all" if setup.coordinated else "each prepares for itself"
        notes.append(f"speed of each of {setup.jobs} jobs with a GPU of its own; {how}")
        if setup.coordinated and not change.loader:
            notes.append("at this loader's own prep rate; coordl's: add --loader coordl")
    if setup.servers > 1:
        where = "one storage for all" if setup.shared_storage else "a storage each"
        caches = "caches serve one another" if setup.partitioned else "each cache for itself"
        notes.append(f"all {setup.servers} servers together, {where}; {caches}")
        if math.isinf(setup.network) and setup.partitioned:
            notes.append("the network between them taken to be no limit (--network says)")
    return notes


def ask(
    result: Result,
    changes: list[Change],
    result_path: str,
    loader_rates: dict[str, Any] | dict[str, dict[str, Any]] | None,
) -> WhatIf:
    """Answers to all changes, as the what-if file holds them (schema: whatif.schema.json).

    `loader_rates` is what `coordl rates` wrote, or such documents by form.
    """
    grid = [n / 50 for n in range(51)]
    rates: dict[str, Any] = dict(result["rates"])
    speed, bound = result["steady"]["speed"]["value"], result["steady"]["bound_by"]
    basis = Basis.of(result)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "result": result_path,
        "emulated": result["emulated"],
        "doubts": [check["name"] for check in result["checks"] if not check["ok"]],
        "baseline": {
            "speed": speed,
            "bound_by": bound,
            "epoch_s": result["dataset"]["samples"] / speed,
        },
        "scenarios": [predict(basis, change, rates_of(change, loader_rates)) for change in changes],
        "curves": [
            {
                "policy": policy,
                "x": grid,
                "F": [
                    model.fetch_rate_at(policy, x, rates["S"]["value"], rates["C"]["value"])
                    for x in grid
                ],
            }
            for policy in model.POLICIES
        ],
    }
    return cast(WhatIf, document)


def rates_of(change: Change, loader_rates: dict[str, Any] | None) -> dict[str, Any] | None:
    """Those of the form that `change` asks for, where there are several documents."""
    if loader_rates is None or "prep_rate" in loader_rates:
        return loader_rates
    if change.form is not None:
        return loader_rates.get(change.form) or next(iter(loader_rates.values()), None)
    return next(iter(loader_rates.values()), None)


def usual_changes(result: Result, coordl: bool) -> list[Change]:
    """The questions people ask first."""
    cores = result["machine"]["cores"]
    storage = max(row["samples_per_s"] for row in result["storage"]) * read_bytes(result)
    changes = [
        Change(cached_fraction=1.0),
        Change(cores=2 * cores),
        Change(storage_bytes_per_s=2 * storage),
        Change(gpu_speedup=2.0),
    ]
    return [Change(loader="coordl"), *changes] if coordl else changes
