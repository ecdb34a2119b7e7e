"""What there is of a profile that could not be completed, marked as such.

Only rates and the prep stall of epochs that come from memory: nothing is said of fetch, and there
is no verdict, because the evidence and the noise floor belong to a whole profile.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

import dsanalyzer
from dsanalyzer import rates, stalls
from dsanalyzer.measure.not_measured import NotMeasured
from dsanalyzer.measure.options import Options
from dsanalyzer.report.units import percent, percent_range, rate, rate_range
from dsanalyzer.result import machine

SCHEMA = "dsanalyzer.partial/1"
RATES = {  # phase: name and meaning
    "ingestion": ("G", "minibatches from memory"),
    "drain": ("P", "the loader alone, files in memory"),
}


def build(command: list[str], options: Options, error: NotMeasured) -> dict[str, Any] | None:
    """The partial result as a JSON-able dict; None where nothing was measured before `error`."""
    if error.part is None:
        return None
    loader, passes = error.part
    by_phase: dict[str, list[dict[str, Any]]] = {}
    for one in passes:
        if one["samples"]:
            by_phase.setdefault(one["phase"], []).append(one)
    if "ingestion" not in by_phase:
        return None
    random = np.random.default_rng(options.seed)
    phases: dict[str, list[dict[str, Any]]] = {
        name: by_phase[name]
        for name in ("ingestion", "delivery", "prep", "drain")
        if name in by_phase
    }
    timed = rates.time_phases(phases, 2 * max(1, loader["num_workers"]), random)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "reason": str(error),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tool": {"name": "dsanalyzer", "version": dsanalyzer.__version__},
        "command": command,
        "machine": machine(),
        "gpu_rate": options.gpu_rate,
        "loader": loader,
        "rates": {
            name: rates.rate(timed[phase], how)
            for phase, (name, how) in RATES.items()
            if phase in timed
        },
        "from_memory": None,
        "passes": len(passes),
    }
    if "prep" in timed:
        prep = timed["prep"]
        times = stalls.epoch(
            timed["ingestion"], prep, prep, 1, stalls.Rule(), timed.get("delivery")
        )
        names = ("share", "share_low", "share_high")
        document["from_memory"] = {
            "speed": times["speed"],
            "prep_stall": {name: times["prep_stall_s"][name] for name in names},
        }
    return document


def lines(document: dict[str, Any]) -> list[str]:
    """What it says, for a terminal."""
    told = []
    for found in document["rates"].values():
        told.append(f"{found['how']}: {rate(found['value'])} ({rate_range(found)})")
    if found := document["from_memory"]:
        stall = found["prep_stall"]
        told.append(
            f"epochs from memory: {rate(found['speed']['value'])}, prep stall "
            f"{percent(stall['share'])} ({percent_range(stall['share_low'], stall['share_high'])})"
        )
    return told
