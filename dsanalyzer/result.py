"""From what was measured to the result file: rates, epochs, stalls, checks, provenance."""

from __future__ import annotations

import datetime
import math
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil

import dsanalyzer
from coordl.cgroups import cpu_quota, memory_limit
from dsanalyzer import evidence, ranks, rates, stalls
from dsanalyzer.measure import mounts, residency
from dsanalyzer.measure.options import Options
from dsanalyzer.measure.session import Measured
from dsanalyzer.predict import model
from dsanalyzer.report import timeline
from dsanalyzer.report.document import Result
from dsanalyzer.report.units import percent, seconds

SCHEMA = "dsanalyzer.result/1"
BESIDES = ("interference", "copy")  # ingestion that is not alone, where it could be measured
FILES_KEPT = 512  # paths kept in the result, for what-if questions that need real items


def build(command: list[str], options: Options, measured: Measured) -> Result:
    """The result as a JSON-able dict (schema: report/schema/result.schema.json)."""
    loader, subset = measured.loader, measured.subset
    sizes = list(subset["sizes"].values())
    samples = loader["dataset_samples"] or len(subset["indices"])
    by_phase = _by_phase(measured.passes)
    random = np.random.default_rng(options.seed)
    block = 2 * max(1, loader["num_workers"])

    timed = _times(by_phase, measured.rounds, block, random)
    ingestion, prep, steady = timed["ingestion"], timed["prep"], timed["steady"]
    floor = stalls.noise_floor(timed["ingestion, first run"], timed["ingestion, second run"])
    whole_device_bytes = sum(map(residency.device_bytes, sizes))
    scale = samples / len(subset["indices"])
    checks = evidence.checks(measured, options, by_phase, whole_device_bytes, floor)

    rule = stalls.Rule(floor, options.threshold, measured.rounds)

    def parts(fetch: rates.Timed) -> dict[str, Any]:
        return stalls.epoch(ingestion, prep, fetch, samples, rule, timed.get("delivery"))

    epochs = [
        _epoch(number, record, parts(timed[f"epoch {number}"]), sizes, scale)
        for number, record in enumerate(by_phase["fetch"])
    ]
    summary = parts(steady)
    summary |= {
        f"{name}_s": stalls.beyond(ingestion, timed[name], samples)
        for name in BESIDES
        if name in timed
    }
    if loads := [one["load_cores"] for one in by_phase.get("interference", [])]:
        summary["load_cores"] = float(np.mean(loads))
    evidence.doubt(summary, checks)
    read_share = float(np.mean([epoch["read_share"] for epoch in epochs[1:]]))
    found = _rates(measured, ingestion, timed["drain"], read_share, random)
    predicted, bound = model.speed(*(found[name]["value"] for name in ("F", "P", "G")))
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tool": {
            "name": "dsanalyzer",
            "version": dsanalyzer.__version__,
            "took_s": measured.took_s,
            "recorded_bytes": measured.recorded_bytes,
            **({"peak_bytes": _peak_bytes()} if measured.own_process else {}),
        },
        "command": command,
        "machine": machine(),
        "options": {
            "policy": options.policy,
            "cached_fraction": options.cached_fraction,
            "storage_bytes_per_s": options.storage_bytes_per_s,
            "storage_method": measured.storage_method,
            "gpu_rate": options.gpu_rate,
            "gpu_trace": list(options.gpu_trace),
            "rounds": measured.rounds,
            "samples": len(subset["indices"]),
            "epochs": len(by_phase["fetch"]),
            "budget_s": options.budget_s,
            "seed": options.seed,
            "threshold": options.threshold,
        },
        "emulated": (
            {"gpu_rate": options.gpu_rate, "how": measured.emulated or "no model was found"}
            if options.gpu_rate
            else None
        ),
        "loader": {key: value for key, value in loader.items() if key != "dataset_samples"},
        "dataset": {
            "samples": samples,
            "measured_samples": len(subset["indices"]),
            "measured_bytes": sum(sizes),
            "mean_item_bytes": sum(sizes) / len(subset["indices"]),
            "mean_read_bytes": whole_device_bytes / len(subset["indices"]),
            "files": list(subset["sizes"])[:FILES_KEPT],
        },
        "rates": found,
        "prep_by_workers": _by_workers(measured, by_phase, timed["drain"], random),
        "epochs": epochs,
        "steady": {**summary, "bound_by": bound, "noise_floor": floor, "threshold": rule.threshold},
        "passes": [_pass(record) for record in measured.passes],
        "timeline": timeline.spans(measured.timelines),
        "storage": [
            {
                "queue_depth": row["queue_depth"],
                "samples_per_s": row["samples_per_s"],
                "bytes_per_s": row["bytes_per_s"],
                "by_size": row["by_size"],
                **{k: v for k, v in rates.mean_rate(row, random).json().items() if k != "value"},
            }
            for row in measured.storage["cold"]
        ],
        "storage_latency_s": measured.storage.get("latency_s"),
        "model": {
            "predicted_speed": predicted,
            "measured_speed": summary["speed"]["value"],
            "error": predicted / summary["speed"]["value"] - 1,
        },
        "checks": [{k: c[k] for k in ("name", "ok", "detail")} for c in checks],
        "diverted": measured.diverted,
        "directory": os.getcwd(),
        "notes": [*_notes(options, measured), *_first_epoch_shorter(epochs, summary)],
    }
    return cast(Result, document)


def _peak_bytes() -> int:
    """The most memory this process has held. getrusage would count what it was forked from."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _times(
    by_phase: dict[str, list[dict[str, Any]]], rounds: int, block: int, random: np.random.Generator
) -> dict[str, rates.Timed]:
    """Every phase, each epoch alone, and ingestion of either run."""
    fetch, ingestion = by_phase["fetch"], by_phase["ingestion"]
    phases = {
        "ingestion": ingestion,
        "prep": by_phase["prep"],
        "drain": by_phase["drain"],
        "steady": fetch[1:],
    }
    if "delivery" in by_phase:
        phases["delivery"] = by_phase["delivery"]
    found = rates.time_phases(phases, block, random)
    parts = {f"epoch {number}": [record] for number, record in enumerate(fetch)}
    parts |= {
        "ingestion, first run": ingestion[:rounds],
        "ingestion, second run": ingestion[rounds:],
    }
    # Apart, so that cores fought over are not taken for the machine's own pace.
    parts |= {name: by_phase[name] for name in BESIDES if name in by_phase}
    return found | rates.time_phases(parts, block, random)


def _by_phase(passes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for record in passes:
        grouped.setdefault(record["phase"], []).append(record)
    return grouped


def _rates(
    measured: Measured,
    ingestion: rates.Timed,
    drain: rates.Timed,
    read_share: float,
    random: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    depth = ranks.readers(measured.loader)
    cold = next(row for row in measured.storage["cold"] if row["queue_depth"] == depth)
    storage, cache = (
        rates.mean_rate(cold, random),
        rates.mean_rate(measured.storage["warm"], random),
    )

    def at(bound: str) -> float:
        return model.fetch_rate(1 - read_share, getattr(storage, bound), getattr(cache, bound))

    fetch = rates.Interval(at("value"), at("low"), at("high"))

    def sampled(interval: rates.Interval, how: str) -> dict[str, Any]:
        return {**interval.json(), "unit": "samples/s", "how": how}

    return {
        "G": rates.rate(ingestion, "recorded minibatches from memory, loader shut down"),
        "P": rates.rate(drain, "the loader alone on resident files, nobody training"),
        "S": sampled(storage, f"cold reads of whole items, {depth} at a time"),
        "C": sampled(cache, "reads of resident items, one at a time"),
        "F": sampled(
            fetch, f"1 / (h/C + (1-h)/S) at the measured hit rate h = {1 - read_share:.3f}"
        ),
    }


def _by_workers(
    measured: Measured,
    by_phase: dict[str, list[dict[str, Any]]],
    drain: rates.Timed,
    random: np.random.Generator,
) -> list[dict[str, Any]]:
    """P at each number of workers that was measured, fewest first; empty without a sweep."""
    swept = by_phase.get("sweep", [])
    if not swept:
        return []
    timed = {measured.loader["num_workers"]: drain}
    for record in swept:
        workers = record["round"]
        timed[workers] = rates.time_phases({"sweep": [record]}, 2 * workers, random)["sweep"]
    return [
        {"workers": workers, **rates.Interval.of(1 / one.value, 1 / one.draws).json()}
        for workers, one in sorted(timed.items())
    ]


def _epoch(
    number: int, record: dict[str, Any], times: dict[str, Any], sizes: list[int], scale: float
) -> dict[str, Any]:
    return {
        "epoch": number,
        "label": "first epoch, cold" if number == 0 else f"epoch {number}",
        **times,
        "storage_bytes": int(record["read_bytes"] * scale),
        "device_bytes": None
        if record["device_bytes"] is None
        else int(record["device_bytes"] * scale),
        "read_share": record["read_bytes"] / sum(map(residency.device_bytes, sizes)),
    }


def _pass(record: dict[str, Any]) -> dict[str, Any]:
    epoch = record["round"] if record["phase"] == "fetch" else None
    unproved = {"read_bytes": 0, "device_bytes": None, "cpu_s": None}
    unproved |= {"resident_before": None, "resident_after": None}
    return {"epoch": epoch, **unproved, **record}


def _notes(options: Options, measured: Measured) -> list[str]:
    notes = mounts.remarks(next(iter(measured.subset["sizes"])))
    if measured.storage_method == "pacing":
        notes.append(
            "storage was slowed down by the tool's own pacing (no control group to be had): opens "
            "of files that were not resident waited as long as the disk asked for would take"
        )
    if measured.loader["holds_cache"]:
        notes.append(
            "the loader holds a cache of its own; the cached fraction above is the page cache's"
        )
        if options.cached_fraction > 0:
            notes.append("profile such a loader with --cached 0%, or both caches serve it")
    if waits := [p["rank_waits_s"] for p in measured.passes if "rank_waits_s" in p]:
        loading = [p for p in measured.passes if p["phase"] == "fetch"][1:]
        share = [
            sum(p["rank_waits_s"][rank] for p in loading) / sum(p["wall_s"] for p in loading)
            for rank in range(len(waits[0]))
        ]
        each = ", ".join(percent(one) for one in share)
        notes.append(
            f"{len(share)} ranks, measured together: each stall is a stall of all. Of the later "
            f"epochs the ranks themselves waited for minibatches {each} (rank 0 first); the rest "
            "of a stall they waited for one another"
        )
    if options.gpu_rate and not measured.emulated:
        notes.append("no model was found to hand to the emulated accelerator: steps ran for real")
    return notes


def _first_epoch_shorter(epochs: list[dict[str, Any]], steady: dict[str, Any]) -> list[str]:
    """A remark where the epoch that reads all from storage took surely less than the later ones."""
    first = epochs[0]["time_s"]
    if first["high"] >= steady["time_s"]["low"]:
        return []
    return [
        f"the first epoch, which read everything from storage, was shorter than the later ones "
        f"({seconds(first['value'])} against {seconds(steady['time_s']['value'])}): the machine or "
        "its storage became slower meanwhile (other load, a disk's burst credit used up). Profile "
        "again on an otherwise idle machine before acting on the fetch stall"
    ]


def cores() -> int:
    """Cores that a job here may use: by affinity, and by the quota of its control groups."""
    count, quota = len(os.sched_getaffinity(0)), cpu_quota()
    return count if quota is None else max(1, min(count, int(quota)))


def machine() -> dict[str, Any]:
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": cores(),
        "memory_bytes": min(psutil.virtual_memory().total, memory_limit() or math.inf),
        "gpu": _gpu_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
    }


def _gpu_name() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        return name.decode() if isinstance(name, bytes) else str(name)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
