"""What must hold for the figures of a profile to mean what they say."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from dsanalyzer import ranks
from dsanalyzer.measure import mounts
from dsanalyzer.measure.options import Options
from dsanalyzer.measure.session import Measured
from dsanalyzer.report.units import exact_percent

STRAY_BYTES = 1 << 20  # of interpreters and libraries, that a pass may read besides its data


def checks(
    measured: Measured,
    options: Options,
    by_phase: dict[str, list[dict[str, Any]]],
    whole_device_bytes: int,
    floor: float,
) -> list[dict[str, Any]]:
    """What must hold for the figures to mean what they say. `doubts`: the stalls it would touch."""
    resident = [*by_phase["prep"], *by_phase["drain"]]
    cold, steady = by_phase["fetch"][0], by_phase["fetch"][1:]
    # The median: the first pass of a cold machine also reads libraries, which are no data.
    stray = float(np.median([p["read_bytes"] for p in resident])) / whole_device_bytes
    # A loader with a cache of its own may drop what it holds from the page cache as it reads.
    when = ("before",) if measured.loader["holds_cache"] else ("before", "after")
    least = min(p[f"resident_{moment}"] for p in resident for moment in when)
    # Of files one neither owns nor may write no rung tells: then bytes read are all the evidence.
    seen = all(p["residency_method"] != "unknown" for p in by_phase["fetch"] + resident)
    pages = (
        f"{exact_percent(least)} of the pages resident {' and '.join(when)} "
        f"({resident[0]['residency_method']})"
        if seen
        else "which pages are resident is not shown of files of another user"
    )
    cold_share = cold["read_bytes"] / whole_device_bytes
    made = [
        _check(
            "prep passes read no storage",
            (least >= 0.99 or not seen)
            and stray * whole_device_bytes <= max(STRAY_BYTES, whole_device_bytes / 100),
            f"{pages}, {exact_percent(stray, 2)} of the bytes read from storage",
            "prep fetch",
        ),
        _check(
            "the first fetch pass is cold",
            cold["resident_before"] <= 0.01 and cold_share >= 0.98,
            f"{exact_percent(cold['resident_before'])} resident before; "
            f"{exact_percent(cold_share)} of the bytes read from storage (less where another "
            "program reads the same files)",
            "fetch",
        ),
    ]
    known = len(measured.subset["sizes"])
    made.append(
        _check(
            "the job opens the files it was seen to open",
            cold["opens"] >= 0.9 * known,
            f"{cold['opens']} opens of {known} files in the first fetch pass (fewer where it makes "
            "copies anew each time, as fsspec's simplecache and clients' downloads are, or where a "
            "stream starts elsewhere: then what reading takes counts as prep; or where the URLs of "
            "objects or the options of their client differ between runs, as signatures do)",
            "prep fetch",
        )
    )
    storage = mounts.mount_of(next(iter(measured.subset["sizes"])))
    counted = (
        "objects asked for"
        if storage.objects
        else "pages not in memory when opened"
        if storage.served
        else "/proc/PID/io"
    )
    # Workers that begin together may all ask for their first object, where files are read once.
    at_once = ranks.readers(measured.loader) * max(measured.subset["sizes"].values())
    besides = max(STRAY_BYTES, at_once if storage.objects else 0)
    # What several ranks say to one another cannot be told from objects.
    if storage.objects and measured.loader["ranks"] == 1:
        made.append(over_the_network(resident, by_phase["fetch"], whole_device_bytes))
    for record in steady:
        expected, found = record["resident_expected_before"], record["resident_before"]
        if seen:
            made.append(
                _check(
                    f"epoch {record['round']}: the cached fraction is what was asked for",
                    abs(found - expected) <= 0.02,
                    f"{exact_percent(found)} of the pages resident before, the policy holds "
                    f"{exact_percent(expected)}",
                    "fetch",
                )
            )
        missed, read = record["missed_device_bytes"], record["read_bytes"]
        made.append(
            _check(
                f"epoch {record['round']}: bytes read are the policy's misses",
                abs(read - missed) <= max(besides, missed / 100),
                f"{read / 1e6:.1f} MB from storage ({counted}), {missed / 1e6:.1f} MB missed by "
                f"{options.policy} in whole pages",
                "fetch",
            )
        )
    colds = measured.storage["cold"]
    made.append(
        _check(
            "storage was measured cold",
            all(row["read_bytes"] >= 0.98 * row["bytes"] for row in colds),
            f"{sum(r['read_bytes'] for r in colds) / 1e6:.1f} MB from storage for "
            f"{sum(r['bytes'] for r in colds) / 1e6:.1f} MB of items",
            "fetch",
        )
    )
    made.append(_same_ingestion(by_phase["ingestion"], measured.rounds, floor))
    loader = measured.loader
    window = ranks.readers(loader) * (loader["prefetch_factor"] or 1) * loader["batch_size"]
    count = len(measured.subset["indices"])
    made.append(
        _check(
            "a pass is long against the prefetch window",
            count >= 8 * window,
            f"{count} samples, at least {8 * window} wanted (8 windows of workers x prefetch x "
            f"batch size): {_longer_pass(loader, count)}",
            "prep fetch",
        )
    )
    if loader["holds_cache"] and loader["dataset_samples"]:
        made.append(
            _check(
                "the loader's own cache meets the whole data set",
                count >= 0.97 * loader["dataset_samples"],
                f"{count} of {loader['dataset_samples']} samples measured; a cache sized for all "
                "holds more of a part (raise --samples)",
                "fetch",
            )
        )
    return made


def over_the_network(
    prep: list[dict[str, Any]], fetch: list[dict[str, Any]], whole_bytes: int
) -> dict[str, Any]:
    """What the machine's interfaces received, against the objects that were asked for."""
    asked = sum(record["missed_bytes"] for record in fetch)
    came = sum(record["received_bytes"] for record in fetch)
    beside = statistics.median(record["received_bytes"] for record in prep)
    return _check(
        "objects came over the network in fetch passes, and in no prep pass",
        0 < asked <= 2 * came and beside <= max(STRAY_BYTES, whole_bytes / 10),
        f"{came / 1e6:.1f} MB received by this machine in fetch passes that asked for objects of "
        f"{asked / 1e6:.1f}, {beside / 1e6:.1f} MB in a prep pass (compression on the way makes it "
        "less; other traffic and questions about objects count, too: where that is much, profile "
        "on a machine that does nothing else)",
        "prep fetch",
    )


def _longer_pass(loader: dict[str, Any], count: int) -> str:
    if loader["dataset_samples"] and count >= 0.8 * loader["dataset_samples"]:
        return "the data set has no more; profile with smaller minibatches or fewer workers"
    return "raise --samples, or profile with fewer workers"


def _same_ingestion(blocks: list[dict[str, Any]], rounds: int, floor: float) -> dict[str, Any]:
    """The two runs should ingest alike: an A/A comparison across processes."""
    speeds = [
        sum(b["samples"] for b in part) / sum(b["wall_s"] for b in part)
        for part in (blocks[:rounds], blocks[rounds:])
    ]
    drift = abs(speeds[0] / speeds[1] - 1)
    return _check(
        "both runs ingest at the same rate",
        drift <= 0.05,
        f"{speeds[0]:.0f} and {speeds[1]:.0f} samples/s; noise floor {exact_percent(floor)}: "
        "a smaller difference between two phases is no stall. Where the two are far apart, profile "
        "on an otherwise idle machine",
        "prep",
    )


def _check(name: str, ok: bool, detail: str, doubts: str) -> dict[str, Any]:
    return {"name": name, "ok": bool(ok), "detail": detail, "doubts": doubts.split()}


def doubt(summary: dict[str, Any], checks: list[dict[str, Any]]) -> None:
    """A stall whose evidence failed is inconclusive, whatever its interval."""
    for check in checks:
        if not check["ok"]:
            for stall in check["doubts"]:
                summary[f"{stall}_stall_s"]["verdict"] = "inconclusive"
