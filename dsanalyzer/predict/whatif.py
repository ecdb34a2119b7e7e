"""What-if questions: the closed form with one or more of its rates changed."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, cast

from dsanalyzer.predict import model
from dsanalyzer.report.document import Result, Scenario, WhatIf

SCHEMA = "dsanalyzer.whatif/1"


@dataclass(frozen=True)
class Change:
    """What is different in a scenario; None leaves a thing as measured.

    Args:
        cached_fraction: share of the data set held in memory, 0 to 1.
        cores: CPU cores for prep, in place of the machine's.
        storage_bytes_per_s: sequential rate of the storage.
        gpu_speedup: factor on the ingestion rate.
        loader: "coordl", never-evict cache and native prep.
    """

    cached_fraction: float | None = None
    cores: int | None = None
    storage_bytes_per_s: float | None = None
    gpu_speedup: float | None = None
    loader: str | None = None

    @property
    def name(self) -> str:
        parts = []
        if self.loader:
            parts.append(self.loader)
        if self.cached_fraction is not None:
            parts.append(f"cache {self.cached_fraction:.0%}")
        if self.cores is not None:
            parts.append(f"{self.cores} cores")
        if self.storage_bytes_per_s is not None:
            parts.append(f"storage {self.storage_bytes_per_s / 1e6:.0f} MB/s")
        if self.gpu_speedup is not None:
            parts.append(f"GPU ×{self.gpu_speedup:g}")
        return " + ".join(parts) or "as measured"

    def merged(self, other: Change) -> Change:
        return Change(
            *(b if b is not None else a for a, b in zip(_values(self), _values(other), strict=True))
        )


def _values(change: Change) -> tuple[Any, ...]:
    return tuple(getattr(change, name) for name in Change.__dataclass_fields__)


def predict(result: Result, change: Change, loader_rates: dict[str, Any] | None) -> Scenario:
    """One scenario. `loader_rates` is what `coordl rates` wrote, needed for loader="coordl".

    Assumptions, each noted in the scenario: prep scales with cores; storage with its rate; the
    job's own loader keeps the share of min(F, P, G) that it reached when measured; coordl overlaps
    fetch and prep fully.
    """
    rates: dict[str, Any] = dict(result["rates"])
    policy, x = model.effective_cache(result)
    x = x if change.cached_fraction is None else change.cached_fraction
    policy = "never-evict" if change.loader else policy
    notes = []
    gpu = _scaled(rates["G"], change.gpu_speedup or 1)
    prep = rates["P"]
    if change.loader:
        if loader_rates is None:
            raise ValueError("predicting coordl needs its prep rate: run `coordl rates`")
        prep = loader_rates["prep_rate"]
        notes.append(f"prep rate measured by coordl itself with {loader_rates['threads']} threads")
    if change.cores is not None:
        prep = _scaled(prep, change.cores / result["machine"]["cores"])
        notes.append("prep taken to scale with cores (enough workers to use them)")
    storage = _storage(result, change)
    hits = model.hit_rate(policy, x)
    fetch = {
        key: model.fetch_rate(hits, storage[key], rates["C"]["value"])
        for key in ("value", "low", "high")
    }
    speed, bound = model.speed(fetch["value"], prep["value"], gpu["value"])
    low = min(fetch["low"], prep["low"], gpu["low"])
    high = min(fetch["high"], prep["high"], gpu["high"])
    if not change.loader:
        share = min(1.0, 1 / (1 + result["model"]["error"]) if result["model"] else 1.0)
        speed, low, high = speed * share, low * share, high * share
        notes.append(f"this loader reached {share:.0%} of min(F, P, G) when measured; kept")
    samples = result["dataset"]["samples"]
    scenario: dict[str, Any] = {
        "name": change.name,
        "changes": {k: v for k, v in vars(change).items() if v is not None},
        "rates": {
            "G": gpu["value"],
            "P": prep["value"],
            "S": storage["value"],
            "C": rates["C"]["value"],
            "F": fetch["value"],
        },
        "policy": policy,
        "cached_fraction": x,
        "hit_rate": hits,
        "speed": {"value": speed, "low": low, "high": high},
        "speedup": speed / result["steady"]["speed"]["value"],
        "epoch_s": samples / speed,
        "storage_bytes_per_epoch": (1 - hits) * samples * result["dataset"]["mean_item_bytes"],
        "bound_by": bound,
        "notes": notes,
    }
    return cast(Scenario, scenario)


def _storage(result: Result, change: Change) -> dict[str, float]:
    """S of a scenario: the one asked for, or as measured at the queue depth the loader keeps."""
    if change.storage_bytes_per_s is not None:
        storage = change.storage_bytes_per_s / result["dataset"]["mean_item_bytes"]
        return {"value": storage, "low": storage, "high": storage}
    if not change.loader:
        return {key: result["rates"]["S"][key] or 0.0 for key in ("value", "low", "high")}  # type: ignore[literal-required]
    deepest: dict[str, Any] = dict(max(result["storage"], key=lambda row: row["queue_depth"]))
    return {"value": deepest["samples_per_s"], "low": deepest["low"], "high": deepest["high"]}


def _scaled(rate: dict[str, Any], by: float) -> dict[str, float]:
    return {key: rate[key] * by for key in ("value", "low", "high")}


def ask(
    result: Result,
    changes: list[Change],
    result_path: str,
    loader_rates: dict[str, Any] | None,
) -> WhatIf:
    """Answers to all changes, as the what-if file holds them (schema: whatif.schema.json)."""
    grid = [n / 50 for n in range(51)]
    rates: dict[str, Any] = dict(result["rates"])
    speed, bound = result["steady"]["speed"]["value"], result["steady"]["bound_by"]
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
        "scenarios": [predict(result, change, loader_rates) for change in changes],
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


def usual_changes(result: Result, coordl: bool) -> list[Change]:
    """The questions people ask first."""
    cores = result["machine"]["cores"]
    storage = max(row["bytes_per_s"] for row in result["storage"])
    changes = [
        Change(cached_fraction=1.0),
        Change(cores=2 * cores),
        Change(storage_bytes_per_s=2 * storage),
        Change(gpu_speedup=2.0),
    ]
    return [Change(loader="coordl"), *changes] if coordl else changes
