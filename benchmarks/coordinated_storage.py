"""What do several jobs read from storage when memory holds a part of their data set?

Measured: eight jobs at a time over one image folder of real photographs, on a disk whose reads are
limited by the kernel, memory for 35 % of them (the setting of Mohan et al., VLDB 2021, section
5.3): torch's DataLoader, a loader for each job and that much page cache for all of them (a memory
control group), each job with an order of its own, and all with the same; coordl's jobs in a group,
with a never-evict cache of that size which all share and no page cache worth the name. One epoch
fills, one settles, the rest count: bytes the device delivered to all jobs, seconds of the slowest.
Not measured: an accelerator's time; more than this machine's cores.
Bias: for torch in the seconds: its data set only reads the bytes, since processes that decode would
need more memory, now and then, than the page cache has. For torch in the second row's bytes: jobs
begin each epoch together, so what one has just read is there for the others of the same order.

    python benchmarks/coordinated_storage.py [--jobs 8] [--fraction .35] [--speed 100e6]

Needs root and control groups of version 1 (memory, blkio).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.cache import evict  # noqa: E402
from benchmarks.coordinated import epoch_of  # noqa: E402
from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.servers import SPARE_PAGE_CACHE  # noqa: E402
from benchmarks.storage.contender import Contender, paths_of  # noqa: E402
from benchmarks.storage.limits import Limits, LimitsError  # noqa: E402
from dsanalyzer.measure import residency  # noqa: E402

QUESTION = __doc__.splitlines()[0]
KINDS = {
    "stock": "torch DataLoader, a loader and an order for each job, page cache",
    "in step": "torch DataLoader, a loader for each job, all the same order, page cache",
    "group": "coordl, one group, one cache",
}


def run_kind(kind: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The counted epochs."""
    paths = list(paths_of(folder))
    total = sum(os.path.getsize(path) for path in paths)
    ours = kind == "group"
    arguments = [str(folder), str(options.batch)]
    arguments += ["uint8", kind] if ours else ["bytes", "stock"]
    arguments += [str(options.workers), f"storage-{os.getpid()}", "0", "256MiB"]
    arguments.append(f"{options.fraction:.0%}" if ours else "")
    page_cache = SPARE_PAGE_CACHE if ours else int(options.fraction * total)
    epochs = []
    evict(paths)
    with Limits(folder, options.speed, page_cache) as limits, ExitStack() as stack:
        seeds = range(options.jobs) if kind == "stock" else [0] * options.jobs
        jobs = [
            stack.enter_context(
                Contender(
                    sys.executable,
                    "benchmarks.loaders.jobs",
                    [*arguments, str(seed)],
                    limits.join,
                )
            )
            for seed in seeds
        ]
        for number in range(options.epochs + 2):  # in the first, memory is not limited yet
            if ours:
                evict(paths)
            before = limits.device_bytes()
            figures = epoch_of(jobs)
            limits.begin(anew=not ours)
            figures["device_bytes"] = limits.device_bytes() - before
            figures["page_cache_bytes"] = limits.page_cache_bytes()
            if number > 1:
                epochs.append(figures)
    return epochs


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    rows = []
    with pictures.linked(pictures.folder("ImageNet-like"), options.photos, options.seed) as folder:
        paths = list(paths_of(folder))
        for kind in KINDS:
            print(f"coordinated_storage: {kind}", file=sys.stderr)
            epochs = run_kind(kind, folder, options)
            read = [each["device_bytes"] for each in epochs]
            rows.append(
                {
                    "kind": kind,
                    "device_bytes": statistics.median(read),
                    "device_bytes_range": [min(read), max(read)],
                    "seconds": statistics.median(each["seconds"] for each in epochs),
                    "epochs": epochs,
                }
            )
        stored = sum(residency.device_bytes(os.path.getsize(path)) for path in paths)
    return {
        **question.head("coordinated_storage", QUESTION, options),
        "photos": len(paths),
        "device_bytes": stored,
        "jobs": options.jobs,
        "fraction": options.fraction,
        "speed": options.speed,
        "rows": rows,
    }


def markdown(result: dict[str, Any]) -> str:
    """One table."""
    least = (1 - result["fraction"]) * result["device_bytes"]
    ours = next(row for row in result["rows"] if row["kind"] == "group")
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['jobs']} jobs, {result['photos']:,} photographs, "
        f"{result['device_bytes'] / 1e6:.1f} MB on the device, memory for "
        f"{result['fraction']:.0%}, storage of {result['speed'] / 1e6:.0f} MB/s; "
        f"{result['date']}. Median (least–most) of the counted epochs. Least: what no cache of "
        "that size can do without, once.",
        "",
        "| loader | MB read per epoch | read / least | read / the group's | s per epoch |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        low, high = row["device_bytes_range"]
        lines.append(
            f"| {KINDS[row['kind']]} | {row['device_bytes'] / 1e6:.1f} "
            f"({low / 1e6:.1f}–{high / 1e6:.1f}) | {row['device_bytes'] / least:.2f} "
            f"| {row['device_bytes'] / max(1, ours['device_bytes']):.1f} | {row['seconds']:.2f} |"
        )
    return "\n".join([*lines, "", f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes coordinated_storage.json and coordinated_storage.md, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--photos", type=int, default=800)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--fraction", type=float, default=0.35)
    parser.add_argument("--speed", type=float, default=100e6, help="bytes/s")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="of each job")
    parser.add_argument("--epochs", type=int, default=3, help="that count")
    options = question.parsed(parser, arguments)
    try:
        result = run(options)
    except LimitsError as error:
        raise SystemExit(f"coordinated_storage: {error}") from None
    question.publish("coordinated_storage", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
