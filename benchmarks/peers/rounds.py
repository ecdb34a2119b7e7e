"""Interleaves the workers round by round, one computing at a time, and sums up what they tell."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .boxes import draw
from .link import Worker, WorkerError
from .pillow import reference
from .registry import Entry
from .variant import Picture, load_pictures

STARTED = time.monotonic()
COMPARED = 32  # samples compared with Pillow's
LOAD_TIMEOUT_S = 300.0  # FFCV writes its file; DALI loads slowly


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"prep: {time.monotonic() - STARTED:6.1f} s  {text}", file=sys.stderr, flush=True)


def summary(rates: list[float]) -> dict[str, Any]:
    """Median and 10-90 % spread of samples/s; the rounds themselves too."""
    return {
        "median": statistics.median(rates),
        "p10": float(np.quantile(rates, 0.1)),
        "p90": float(np.quantile(rates, 0.9)),
        "rounds": [round(rate, 2) for rate in rates],
    }


class Row:
    """One variant under way: a worker per CPU, its rates so far."""

    def __init__(self, entry: Entry, cpus: list[int], malloc: str, stack: ExitStack) -> None:
        self.entry = entry
        self.one: list[float] = []  # samples per CPU second
        self.two: list[float] = []  # samples per second of two processes together
        self.workers: list[Worker] = []
        for cpu in cpus:
            self.workers.append(Worker(entry, cpu, malloc))
            stack.callback(self.workers[-1].close)

    def load(self, paths: list[Path], seed: int) -> dict[str, Any]:
        """Describes the variant."""
        request = {"do": "load", "entry": self.entry.key, "paths": [*map(str, paths)], "seed": seed}
        for worker in self.workers:
            worker.send(**request)
        return [worker.receive(LOAD_TIMEOUT_S) for worker in self.workers][0]  # noqa: RUF015

    def run_one(self, number: int) -> None:
        """A round on one core; number 0 is the warm-up, which is dropped."""
        told = self.workers[0].ask(do="round", number=number)
        if number:
            self.one.append(told["samples"] / told["cpu_s"])

    def run_two(self, number: int) -> None:
        """A round of every worker at the same time, over the wall time from first to last."""
        for worker in self.workers:
            worker.send(do="round", number=number)
        told = [worker.receive(300.0) for worker in self.workers]
        if number:
            wall_s = max(t["end_s"] for t in told) - min(t["begin_s"] for t in told)
            self.two.append(sum(t["samples"] for t in told) / wall_s)


def write_reference(pictures: list[Picture], seed: int, file: Path) -> int:
    """Pillow's pixels of the first samples of round 0, as .npy; how many."""
    some = pictures[:COMPARED]
    boxes = [draw(seed, 0, i, p.width, p.height) for i, p in enumerate(some)]
    np.save(file, np.stack([reference(p, b) for p, b in zip(some, boxes, strict=True)]))
    return len(some)


def twin(entry: Entry, told: dict[str, Any], rows: list[tuple[Row, dict[str, Any]]]) -> str:
    """Key of a row with the same code and the same kernels, or nothing."""
    for row, other in rows:
        same_code = (row.entry.module, row.entry.factory) == (entry.module, entry.factory)
        kernels = told["facts"].get("kernels")
        if same_code and kernels and kernels == other["facts"]["kernels"]:
            return row.entry.key
    return ""


def measure(
    entries: list[Entry],
    paths: list[Path],
    *,
    rounds: int,
    seed: int,
    malloc: str = "default",
    cpus: list[int] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows in the order of the entries, and why others were left out, by key.

    Args:
        paths: .jpg files, the samples of a round.
        rounds: measured rounds, after one that is dropped.
        malloc: "default" or "raised".
        cpus: one, or two for the figures of two cores; those of this process by default.
    """
    cpus = (cpus or sorted(os.sched_getaffinity(0)))[:2]
    left_out: dict[str, str] = {}
    rows: list[tuple[Row, dict[str, Any]]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pictures = load_pictures([*map(str, paths)])
        compared = write_reference(pictures, seed, folder / "pillow.npy")
        for entry in entries:
            try:
                own = cpus if entry.kind == "prep" else cpus[:1]
                row = Row(entry, own, malloc, stack)
                told = row.load(paths, seed)
                same = twin(entry, told, rows)
                if same:
                    raise WorkerError(f"the same as {same} on this CPU")
                if entry.kind == "prep" and told["same_boxes"]:
                    file = str(folder / "pillow.npy")
                    told["difference"] = row.workers[0].ask(
                        do="check", reference=file, count=compared
                    )
                rows.append((row, told))
                say(f"{entry.label}: ready")
            except WorkerError as error:
                left_out[entry.key] = str(error)
                say(f"{entry.label}: left out: {error}")
        for number in range(rounds + 1):
            turn = number % max(1, len(rows))  # nobody always runs after the same one
            for row, _ in [*rows[turn:], *rows[:turn]]:
                if row.entry.key in left_out:
                    continue
                try:
                    row.run_one(number)
                    if len(row.workers) > 1:
                        row.run_two(number)
                except WorkerError as error:
                    left_out[row.entry.key] = str(error)
                    say(f"{row.entry.label}: left out: {error}")
            say(f"round {number} of {rounds} ({malloc} malloc)")
    results = []
    for row, told in rows:
        if row.entry.key in left_out:
            continue
        result = {"key": row.entry.key, "label": row.entry.label, "kind": row.entry.kind, **told}
        result["one_core"] = summary(row.one)
        if row.two:
            result["two_cores"] = summary(row.two)
        results.append(result)
    return results, left_out
