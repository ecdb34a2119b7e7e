"""Storage alone: the job's items, read by the tool itself, under the limit the job is under."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dsanalyzer.job import bound_to_tool
from dsanalyzer.measure import objects, residency
from dsanalyzer.measure.not_measured import NotMeasured
from dsanalyzer.measure.throttle import NEARLY, ReadThrottle

LIMIT_S = 3.0  # of one depth
DEEPEST = 16  # what most storage gives its best at
LATENCY_ITEMS = 128


def measure(
    directory: Path,
    subset: dict[str, Any],
    readers: int,
    throttle: ReadThrottle | None,
    seed: int,
) -> dict[str, Any]:
    """Rates of the subset's samples, by queue depth from storage, and from memory.

    Args:
        directory: of the run.
        readers: how many of the job's processes read at a time: a depth that is among those.

    Returns:
        What storage.py prints, by samples where it counts files; under a limit with `latency_s`,
        what a read takes beside the wait that the limit makes for it.

    Raises:
        NotMeasured: the items cannot be read.
    """

    def read(paths: list[str], depths: list[int], limit_s: float, held: Any) -> dict[str, Any]:
        request = directory / "storage.json"
        asked = {"paths": paths, "depths": depths, "limit_s": limit_s, "seed": seed}
        request.write_text(json.dumps(asked))
        done = subprocess.run(
            [sys.executable, "-m", "dsanalyzer.measure.storage", str(request)],
            capture_output=True,
            text=True,
            preexec_fn=bound_to_tool(held),
        )
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise NotMeasured(f"reading items from storage failed: {why}", done.stderr)
        return dict(json.loads(done.stdout))

    paths = list(subset["sizes"])
    measured = read(paths, sorted({1, readers, DEEPEST}), LIMIT_S, throttle)
    # A sample may be several files, or several may share one.
    per_sample = len(paths) / len(subset["indices"])
    if throttle is not None:
        for row in measured["cold"]:
            hold(row, throttle)
        (one,) = read(paths[:LATENCY_ITEMS], [1], LIMIT_S / 4, None)["cold"]
        measured["latency_s"] = per_sample / one["samples_per_s"]
    for row in [*measured["cold"], measured["warm"]]:
        row["samples_per_s"] /= per_sample
        row["slices"] = [rate / per_sample for rate in row["slices"]]
    return measured


def hold(row: dict[str, Any], throttle: ReadThrottle) -> None:
    """Storage that reached the rate it is held to has that rate.

    The reader has no hooks, so pacing did not hold it; and a control group lets a tenth of a second
    through at once, which is much of a short run.
    """
    if not row["read_bytes"]:  # memory answered, which a check says
        return
    reached = row["read_bytes"] / row["bytes"] * row["bytes_per_s"]  # of whole pages
    by = throttle.bytes_per_s / reached
    if by > 1 / NEARLY or (by > 1 and throttle.method == "pacing"):
        return
    for name in ("bytes_per_s", "samples_per_s"):
        row[name] *= by
    row["slices"] = [rate * by for rate in row["slices"]]
    for one in row["by_size"]:
        one["read_s"] /= by
    if throttle.method == "pacing":
        row["slices"] = [row["samples_per_s"]]


def check_can_be_held(path: str) -> None:
    """A limit is on what is read from disks."""
    if objects.is_object(path):
        raise NotMeasured(
            f"--storage holds back what is read from disks, and the data comes from "
            f"{objects.name_of(path)}. Leave it out, and ask `dsanalyzer whatif --storage` what "
            "slower or faster storage would change; or hold the network back (tc)"
        )


def check_pacing(path: str, method: str) -> None:
    """Pacing charges for the pages that are not in memory, and has to see which."""
    if method == "pacing" and residency.resident_pages(path)[2] == "unknown":
        raise NotMeasured(
            "--storage cannot be held here: there is no control group for it, and for the tool's "
            f"own pacing the kernel does not show which pages of {path} are in memory, a file you "
            "neither own nor may write. Leave out --storage, profile as the files' owner, or a copy"
        )
