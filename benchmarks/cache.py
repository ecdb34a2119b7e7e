"""How much does an epoch read, and how long does it take, when memory holds a part of the data?

Measured: real photographs on a disk whose reads are limited by the kernel, memory for a fraction
of them, a fresh order per epoch; torch's DataLoader and DALI's file reader with that much page
cache (a memory control group), coordl with a never-evict cache of that size and no page cache worth
the name. Each in processes of its own, one after the other at each fraction; one epoch fills, one
settles, the rest count. Bytes are what the device delivered to the group. Before coordl's epochs
the files are advised out of memory, and that none is left there is checked: what an epoch then
reads must be what the cache does not hold. Beside it what an exact LRU of that size would miss,
simulated.
Not measured: an accelerator's time (epochs only deliver minibatches), the memory programs need
themselves, more than this machine's cores.
Bias: ours. DALI draws its own crops from the same distribution and cannot tell its misses.

    python benchmarks/cache.py [--speeds 15e6 530e6] [--fractions .25 .35 .5 .65 .8] [--epochs 3]

Needs root and control groups of version 1 (memory, blkio). DALI lives in .venv-peers: see prep.py.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.peers.link import PEERS_PYTHON  # noqa: E402
from benchmarks.storage.contender import Contender, ContenderError, paths_of  # noqa: E402
from benchmarks.storage.limits import Limits, LimitsError  # noqa: E402
from dsanalyzer.measure import residency  # noqa: E402

QUESTION = __doc__.splitlines()[0]
CONTENDERS = {
    "stock": "torch DataLoader, page cache",
    "dali": "DALI file reader, page cache",
    "ours": "coordl, never-evict cache",
}
PROGRAMS = {
    "stock": "benchmarks.storage.stock",
    "dali": "benchmarks.loaders.dali",
    "ours": "benchmarks.storage.ours",
}
SPARE_PAGE_CACHE = 8 << 20  # coordl's: for files on their way through


def batch_of(photos: int) -> int:
    """A minibatch that divides the data set, so that DALI's epochs end where it does."""
    return max((size for size in range(32, 65) if photos % size == 0), default=64)


def simulate_lru(sizes: list[int], budget: float, epochs: int, seed: int) -> float:
    """Share of reads an LRU of that size misses, a fresh order per epoch, the first apart."""
    held: OrderedDict[int, int] = OrderedDict()
    inside = missed = 0
    chance = random.Random(seed)
    for epoch in range(epochs + 1):
        for item in chance.sample(range(len(sizes)), len(sizes)):
            if item in held:
                held.move_to_end(item)
                continue
            missed += epoch > 0
            held[item] = sizes[item]
            inside += sizes[item]
            while inside > budget:
                inside -= held.popitem(last=False)[1]
    return missed / epochs / len(sizes)


def evict(paths: list[str]) -> float:
    """Takes the files out of memory; the share that stayed."""
    for path in paths:
        residency.evict(path)
    return residency.residency(paths).share


def run_one(
    kind: str, folder: Path, paths: list[str], fraction: float, speed: float, epochs: int
) -> list[dict[str, Any]]:
    """The counted epochs of one contender. Raises ContenderError, LimitsError."""
    total = sum(os.path.getsize(path) for path in paths)
    ours = kind == "ours"
    python = str(PEERS_PYTHON) if kind == "dali" else sys.executable
    arguments = [str(folder), str(batch_of(len(paths)))] + ([f"{fraction:.0%}"] if ours else [])
    page_cache = SPARE_PAGE_CACHE if ours else int(fraction * total)
    results = []
    evict(paths)
    with (
        Limits(folder, speed, page_cache) as limits,
        Contender(python, PROGRAMS[kind], arguments, limits.join) as contender,
    ):
        for number in range(epochs + 2):  # in the first, memory is not limited yet
            stayed = evict(paths) if ours else None
            before = limits.device_bytes()
            figures = contender.epoch()
            limits.begin()
            figures["device_bytes"] = limits.device_bytes() - before
            figures["page_cache_bytes"] = limits.page_cache_bytes()
            figures["resident_before"] = stayed
            if figures["samples"] != len(paths):
                raise ContenderError(f"{figures['samples']} samples of {len(paths)}")
            if number > 1:
                results.append(figures)
    return results


def summarise(kind: str, epochs: list[dict[str, Any]], paths: list[str]) -> dict[str, Any]:
    """Medians and spreads over the counted epochs."""
    seconds = [each["seconds"] for each in epochs]
    read = [each["device_bytes"] for each in epochs]
    row: dict[str, Any] = {
        "contender": kind,
        "seconds": statistics.median(seconds),
        "seconds_range": [min(seconds), max(seconds)],
        "device_bytes": statistics.median(read),
        "device_bytes_range": [min(read), max(read)],
        "page_cache_bytes": statistics.median(each["page_cache_bytes"] for each in epochs),
        "epochs": epochs,
    }
    if "missed" in epochs[0]:
        row["missed"] = statistics.median(each["missed"] for each in epochs) / len(paths)
    if kind == "ours":
        row["uncached_bytes"] = epochs[-1]["uncached"]
        row["most_off"] = max(abs(e["device_bytes"] / e["uncached"] - 1) for e in epochs)
        row["resident_before"] = max(each["resident_before"] for each in epochs)
    return row


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    left_out: dict[str, str] = {}
    kinds = list(CONTENDERS)
    if not PEERS_PYTHON.exists():
        kinds.remove("dali")
        left_out["dali"] = "no .venv-peers: python benchmarks/prep.py --peers sets it up"
    cells = []
    with pictures.linked(pictures.folder("ImageNet-like"), options.photos, options.seed) as folder:
        paths = list(paths_of(folder))
        sizes = [os.path.getsize(path) for path in paths]
        for speed in options.speeds:
            for fraction in options.fractions:
                budget = fraction * sum(sizes)
                lru = simulate_lru(sizes, budget, 20, options.seed)
                rows = []
                for kind in kinds:
                    print(f"cache: {speed / 1e6:.0f} MB/s, {fraction:.0%}: {kind}", file=sys.stderr)
                    try:
                        epochs = run_one(kind, folder, paths, fraction, speed, options.epochs)
                    except ContenderError as error:
                        left_out[kind] = str(error)
                        continue
                    rows.append(summarise(kind, epochs, paths))
                cells.append({"speed": speed, "fraction": fraction, "lru": lru, "rows": rows})
    return {
        **question.head("cache", QUESTION, options),
        "photos": len(paths),
        "bytes": sum(sizes),
        "device_bytes": sum(map(residency.device_bytes, sizes)),
        "batch": batch_of(len(paths)),
        "cells": cells,
        "left_out": left_out,
    }


def markdown(result: dict[str, Any]) -> str:
    """One table for each speed of the storage."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['photos']:,} photographs, {result['bytes'] / 1e6:.1f} MB, minibatches of "
        f"{result['batch']}, two workers or threads. Median (least–most) of the counted epochs; "
        f"{result['date']}. Read: bytes from the device, in whole pages. Missed: share of the "
        "samples whose file was not whole in memory. Least: what no cache of that size can do "
        "without. Page cache: what files held of it at an epoch's end, as a share of the data.",
        "",
    ]
    for speed in sorted({cell["speed"] for cell in result["cells"]}):
        lines += [f"## Storage of {speed / 1e6:.0f} MB/s", ""]
        lines += [
            "| in memory | contender | s per epoch | MB read | missed | read / least | page cache |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for cell in (c for c in result["cells"] if c["speed"] == speed):
            least = (1 - cell["fraction"]) * result["device_bytes"]
            for row in cell["rows"]:
                missed = f"{row['missed']:.1%}" if "missed" in row else "–"
                low, high = row["seconds_range"]
                lines.append(
                    f"| {cell['fraction']:.0%} | {CONTENDERS[row['contender']]} "
                    f"| {row['seconds']:.2f} ({low:.2f}–{high:.2f}) "
                    f"| {row['device_bytes'] / 1e6:.1f} | {missed} "
                    f"| {row['device_bytes'] / least:.2f} "
                    f"| {row['page_cache_bytes'] / result['bytes']:.0%} |"
                )
            share = f"{cell['fraction']:.0%}"
            lines.append(f"| {share} | exact LRU, simulated | – | – | {cell['lru']:.1%} | – | – |")
        lines += [""]
    ours = [r for c in result["cells"] for r in c["rows"] if r["contender"] == "ours"]
    if ours:
        lines += [
            "coordl's bytes from the device differ from those of the items its cache did not hold "
            f"by at most {max(r['most_off'] for r in ours):.2%} in any epoch; before each, at most "
            f"{max(r['resident_before'] for r in ours):.2%} of the files' pages were in memory.",
            "",
        ]
    lines += [f"Left out: {kind}: {why}" for kind, why in result["left_out"].items()]
    return "\n".join([*lines, f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes cache.json and cache.md, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--speeds", nargs="+", type=float, default=[15e6, 530e6], help="bytes/s")
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.25, 0.35, 0.5, 0.65, 0.8])
    parser.add_argument("--photos", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=3, help="that count")
    options = question.parsed(parser, arguments)
    try:
        result = run(options)
    except LimitsError as error:
        raise SystemExit(f"cache: {error}") from None
    question.publish("cache", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
