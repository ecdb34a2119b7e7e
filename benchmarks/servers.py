"""What does an epoch of a job on several servers read and take, when they share their caches?

Measured: N servers emulated on this machine: network namespaces with links of a given rate, the
disk's reads limited for each server, page cache for a fraction of the data, a copy of it for each,
so that no page serves two; real photographs, one DDP job (gloo) that only takes minibatches.
torch's DataLoader with that page cache against coordl with a cache of that size, shared
(`peers="auto"`). One epoch fills, the others count: seconds until all ranks are through, bytes that
the device gave all servers, bytes over the links beside those of the items that had to cross them.
With --light the crop is 64x64 as it lies, so that storage and links bind sooner than prep; more so
with --large photographs (OpenImages-like), of which coordl's indexed items decode the crop alone.
Not measured: an accelerator; latency of a network (links have rates alone); more cores than this
machine's, which all servers share: with many or fast links the cores bind, not links or storage.
Bias: ours.

    python benchmarks/servers.py [--servers 2 4] [--fractions .25 .5 .65] [--speed 15e6]
        [--link 10gbit] [--epochs 2] [--light] [--form packed] [--large]

Needs root, iproute2 and control groups of version 1 (memory, blkio).
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.storage import lab  # noqa: E402
from benchmarks.storage.contender import Contender, ContenderError, paths_of  # noqa: E402
from benchmarks.storage.limits import Limits, LimitsError  # noqa: E402
from dsanalyzer.measure import residency  # noqa: E402

QUESTION = __doc__.splitlines()[0]
KINDS = {"stock": "torch DataLoader, page cache", "ours": "coordl, caches shared"}
BATCH = 32
SPARE_PAGE_CACHE = 32 << 20  # coordl's: for files on their way through, and what gRPC takes at once


@contextmanager
def copies_of(folder: Path, count: int) -> Iterator[list[Path]]:
    """A copy for each server, the same to whoever looks at names, sizes and times."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="servers-") as place:
        copies = [Path(place) / str(server) for server in range(count)]
        for copy in copies:
            shutil.copytree(folder, copy)
        os.sync()
        yield copies


def run_one(
    kind: str, folder: Path, copies: list[Path], fraction: float, options: Any
) -> list[dict[str, Any]]:
    """The counted epochs of one job. Raises ContenderError, LimitsError, LabError."""
    count, paths = len(copies), [path for copy in copies for path in paths_of(copy)]
    total = sum(os.path.getsize(path) for path in paths) // count
    page_cache = SPARE_PAGE_CACHE if kind == "ours" else int(fraction * total)
    token, results = secrets.token_hex(16), []
    for path in paths:
        residency.evict(path)
    with ExitStack() as stack:
        stack.enter_context(lab.servers(count, options.link))
        limits, ranks = [], []
        for server in range(count):
            arenas = lab.memory(server)
            arenas.mkdir(parents=True)
            stack.callback(shutil.rmtree, arenas.parent, ignore_errors=True)
            limit = stack.enter_context(Limits(folder, options.speed, page_cache, str(server)))
            arguments = [kind, str(server), str(count), str(folder), str(BATCH)]
            arguments += [f"{fraction:.0%}", str(arenas), lab.address(0), token]
            arguments += [options.form, "light" if options.light else "usual"]

            enter = lab.enter(server, copies[server], folder)

            def join(limit: Limits = limit, enter: Any = enter) -> None:
                limit.join()
                enter()

            module = "benchmarks.storage.rank"
            ranks.append(stack.enter_context(Contender(sys.executable, module, arguments, join)))
            limits.append(limit)
        threads = stack.enter_context(ThreadPoolExecutor(count))
        for number in range(options.epochs + 1):
            if kind == "ours":
                for path in paths:
                    residency.evict(path)
            read = sum(limit.device_bytes() for limit in limits)
            links = sum(lab.received_bytes(server) for server in range(count))
            figures = list(threads.map(Contender.epoch, ranks))
            for limit in limits:
                limit.begin()
            told: dict[str, Any] = {
                "seconds": max(each["seconds"] for each in figures),
                "cpu_seconds": sum(each["cpu_seconds"] for each in figures),
                "device_bytes": sum(limit.device_bytes() for limit in limits) - read,
                "link_bytes": sum(lab.received_bytes(server) for server in range(count)) - links,
                "ranks": figures,
            }
            if kind == "ours":
                told["remote_bytes"] = sum(each["remote_bytes"] for each in figures)
                told["storage_bytes"] = sum(each["storage_bytes"] for each in figures)
            if number > 0:
                results.append(told)
    return results


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    cells = []
    source = pictures.folder("OpenImages-like" if options.large else "ImageNet-like")
    with ExitStack() as stack:
        folder = stack.enter_context(pictures.linked(source, options.photos, options.seed))
        paths = list(paths_of(folder))
        copies = stack.enter_context(copies_of(folder, max(options.servers)))
        for count in options.servers:
            for fraction in options.fractions:
                for kind in KINDS:
                    print(f"servers: {count}, {fraction:.0%}: {kind}", file=sys.stderr)
                    epochs = run_one(kind, folder, copies[:count], fraction, options)
                    cells.append(
                        {"servers": count, "fraction": fraction, "kind": kind, "epochs": epochs}
                    )
        size = sum(os.path.getsize(path) for path in paths)
    return {
        **question.head("servers", QUESTION, options),
        "photos": len(paths),
        "bytes": size,
        "speed": options.speed,
        "link": options.link,
        "prep": "light" if options.light else "usual",
        "form": options.form,
        "cells": cells,
    }


def markdown(result: dict[str, Any]) -> str:
    """One table; medians of the counted epochs."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['photos']:,} photographs, {result['bytes'] / 1e6:.1f} MB; each server reads "
        f"{result['speed'] / 1e6:.0f} MB/s at most, and has links of {result['link']}; minibatches "
        f"of {BATCH}, {result['prep']} prep, coordl's items {result['form']}; {result['date']}. "
        "Least: what caches of that size cannot hold together. "
        "Items: bytes of items that other servers gave. Links: bytes all servers received.",
        "",
        "| servers | memory each | loader | s per epoch | MB read | least | items MB | links MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in result["cells"]:
        epochs = cell["epochs"]

        def median(name: str, epochs: Any = epochs) -> float:
            return statistics.median(each[name] for each in epochs)

        least = max(0.0, 1 - cell["servers"] * cell["fraction"]) * result["bytes"]
        items = f"{median('remote_bytes') / 1e6:.1f}" if cell["kind"] == "ours" else "–"
        lines.append(
            f"| {cell['servers']} | {cell['fraction']:.0%} | {KINDS[cell['kind']]} "
            f"| {median('seconds'):.2f} | {median('device_bytes') / 1e6:.1f} | {least / 1e6:.1f} "
            f"| {items} | {median('link_bytes') / 1e6:.1f} |"
        )
    return "\n".join([*lines, "", f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes servers.json and servers.md, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--servers", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.25, 0.5, 0.65])
    parser.add_argument("--speed", type=float, default=15e6, help="of each server's disk, bytes/s")
    parser.add_argument("--link", default="10gbit", help="of each server, as tc has it")
    parser.add_argument("--light", action="store_true", help="little prep")
    parser.add_argument("--form", default="original", help="of coordl's items")
    parser.add_argument("--large", action="store_true", help="large photographs; servers_large.md")
    parser.add_argument("--photos", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=2, help="that count")
    options = question.parsed(parser, arguments)
    try:
        result = run(options)
    except (LimitsError, lab.LabError, ContenderError) as error:
        raise SystemExit(f"servers: {error}") from None
    name = "servers_large" if options.large else "servers"
    question.publish(name, result, markdown(result), options.output)


if __name__ == "__main__":
    main()
