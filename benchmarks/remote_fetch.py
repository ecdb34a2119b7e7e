"""How fast do items come from another server's memory, and what does that cost both sides?

Measured: two servers emulated on this machine (servers.py says how), which hold large photographs
between them, indexed, so that half of every epoch's items cross the links; crops of 64x64, of which
little is decoded. Each photograph is there several times, as files of their own, so that an epoch
is more than its begin and end. All of both servers, senders and receivers, share this machine's
cores. Bytes/s that each server received over the median epoch, as a share of its link; CPU seconds
per GB of items that crossed, of both sides together: those of an epoch, less those of the same
samples on one server that holds everything.
Not measured: other hosts' network cards; one side alone (the two sides are one machine here).
Bias: ours, and no peer.

    python benchmarks/remote_fetch.py [--links 1gbit 10gbit] [--times 6] [--epochs 5]

Needs root, iproute2 and control groups of version 1 (memory, blkio).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.servers import copies_of, run_one  # noqa: E402
from benchmarks.storage import lab  # noqa: E402
from benchmarks.storage.contender import ContenderError, paths_of  # noqa: E402
from benchmarks.storage.limits import LimitsError  # noqa: E402

QUESTION = __doc__.splitlines()[0]
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
NO_LIMIT = 50e9  # of the disk, bytes/s


def bytes_per_s(link: str) -> float:
    """Of a rate as tc has it: "10gbit"."""
    unit = link.lstrip("0123456789.")
    return float(link.removesuffix(unit)) * UNITS[unit] / 8


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    rows = []
    source = pictures.folder("OpenImages-like")
    with ExitStack() as stack:
        linked = pictures.linked(source, options.photos, options.seed, options.times)
        folder = stack.enter_context(linked)
        copies = stack.enter_context(copies_of(folder, 2))
        size = sum(os.path.getsize(path) for path in paths_of(folder))
        for link in options.links:
            print(f"remote_fetch: {link}", file=sys.stderr)
            setting: Any = SimpleNamespace(
                link=link, speed=NO_LIMIT, form="indexed", light=True, epochs=options.epochs + 1
            )
            # The first that counts in servers.py still settles who owns what.
            both = run_one("ours", folder, copies, 1.2, setting)[1:]
            alone = run_one("ours", folder, copies[:1], 1.2, setting)[1:]
            rows.append({"link": link, "two": both, "one": alone, **summary(link, both, alone)})
    return {
        **question.head("remote_fetch", QUESTION, options),
        "photos": options.photos * options.times,
        "bytes": size,
        "rows": rows,
    }


def summary(link: str, two: list[dict[str, Any]], one: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the epochs."""
    rates = [each["link_bytes"] / 2 / each["seconds"] for each in two]
    lone_cpu = statistics.median(each["cpu_seconds"] for each in one)
    crossed = statistics.median(each["remote_bytes"] for each in two)
    return {
        "rate": statistics.median(rates),
        "rate_range": [min(rates), max(rates)],
        "share": statistics.median(rates) / bytes_per_s(link),
        "crossed": crossed,
        "read": max(each["device_bytes"] for each in two),
        "seconds": statistics.median(each["seconds"] for each in two),
        "seconds_alone": statistics.median(each["seconds"] for each in one),
        "cpu_seconds": statistics.median(each["cpu_seconds"] for each in two),
        "cpu_seconds_alone": lone_cpu,
        "cpu_per_gb": (statistics.median(e["cpu_seconds"] for e in two) - lone_cpu)
        / (crossed / 1e9),
    }


def markdown(result: dict[str, Any]) -> str:
    """One table."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['photos']:,} photographs, {result['bytes'] / 1e6:.1f} MB; {result['date']}. "
        "Median (least–most) of the epochs. Alone: the same samples on one server that holds them.",
        "",
        "| link | MB/s received, each server | of the link | s per epoch | alone | CPU s | alone "
        "| CPU s per GB that crossed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        low, high = row["rate_range"]
        lines.append(
            f"| {row['link']} | {row['rate'] / 1e6:,.0f} ({low / 1e6:,.0f}–{high / 1e6:,.0f}) "
            f"| {row['share']:.0%} | {row['seconds']:.2f} | {row['seconds_alone']:.2f} "
            f"| {row['cpu_seconds']:.2f} | {row['cpu_seconds_alone']:.2f} "
            f"| {row['cpu_per_gb']:.2f} |"
        )
    return "\n".join([*lines, "", f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes remote_fetch.json and remote_fetch.md, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--links", nargs="+", default=["1gbit", "10gbit"])
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--times", type=int, default=6, help="that each is there")
    parser.add_argument("--epochs", type=int, default=5, help="that count")
    options = question.parsed(parser, arguments)
    try:
        result = run(options)
    except (LimitsError, lab.LabError, ContenderError) as error:
        raise SystemExit(f"remote_fetch: {error}") from None
    question.publish("remote_fetch", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
