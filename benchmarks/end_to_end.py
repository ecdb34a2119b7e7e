"""How many samples a second does a whole loader deliver on this machine, and what binds it?

Measured: one image folder of real photographs, all in the page cache, an unedited ImageFolder
script (crop, flip, normalise to 3x224x224) that only takes minibatches: torch's DataLoader with
Pillow and with torchvision v2 on tensors, each at its best number of workers, DALI, SPDL, and
coordl without a cache and with one that holds everything. Every loader is a process of its own and
stays; epochs are interleaved, one loader computing at a time. The first epoch of a process, with
the start of its workers, is told apart: median over starts; the others: median of the rounds and
their range. CPU: seconds of all its processes per wall second; two is all there is.
Not measured: an accelerator and its step; storage (see cache.py); more cores than this machine's.
Bias: ours. DALI, SPDL and torch draw crops of their own from the same distribution. DALI's and
SPDL's minibatches stay as they make them, without a copy into torch's memory.

    python benchmarks/end_to_end.py [--photos 1600] [--rounds 5] [--starts 3]

Peers live in .venv-peers: see prep.py. Where it is not there they are left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.peers.link import PEERS_PYTHON  # noqa: E402
from benchmarks.storage.contender import Contender, ContenderError, paths_of  # noqa: E402

QUESTION = __doc__.splitlines()[0]
DTYPES = ("float32", "uint8")
WORKERS = (1, 2, 3)


@dataclass(frozen=True)
class Loader:
    """One row: a program of benchmarks/loaders and its arguments after FOLDER BATCH DTYPE."""

    key: str
    label: str
    module: str
    arguments: tuple[str, ...] = ()
    peer: bool = False


TORCHS = [
    Loader("pillow", "torch DataLoader, Pillow recipe", "torchs", ("pillow",)),
    Loader("v2", "torch DataLoader, torchvision v2 on tensors", "torchs", ("v2",), True),
]
OTHERS = [
    Loader("dali", "DALI, file reader and CPU pipeline", "dali", (), True),
    Loader("spdl", "SPDL DataLoader", "spdl", (), True),
    Loader("none", "coordl, no cache", "ours", ("none",)),
    Loader("original", "coordl, items held as they are", "ours", ("original",)),
    Loader("indexed", "coordl, items held indexed", "ours", ("indexed",)),
    Loader("packed", "coordl, items held packed", "ours", ("packed",)),
]


def start(loader: Loader, folder: Path, batch: int, dtype: str) -> Contender:
    """Its process, ready. Raises ContenderError."""
    return Contender(
        str(PEERS_PYTHON) if loader.peer else sys.executable,
        f"benchmarks.loaders.{loader.module}",
        [str(folder), str(batch), dtype, *loader.arguments],
    )


def with_workers(loader: Loader, workers: int) -> Loader:
    """The same with so many workers."""
    label = f"{loader.label}, {workers} worker{'s' if workers > 1 else ''}"
    return Loader(loader.key, label, loader.module, (*loader.arguments, str(workers)), loader.peer)


def best_workers(loader: Loader, folder: Path, batch: int, dtype: str) -> tuple[Loader, Any]:
    """The number of workers with the fastest second epoch, and the seconds of each."""
    seconds: dict[int, float] = {}
    for workers in WORKERS:
        with start(with_workers(loader, workers), folder, batch, dtype) as contender:
            contender.epoch()
            seconds[workers] = contender.epoch()["seconds"]
    return with_workers(loader, min(seconds, key=lambda w: seconds[w])), seconds


def run_once(
    loaders: list[Loader], folder: Path, batch: int, dtype: str, rounds: int, photos: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """A first epoch of each and so many more, by turns; and what failed, with why."""
    epochs: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        contenders = {}
        for loader in loaders:
            try:
                contenders[loader.key] = stack.enter_context(start(loader, folder, batch, dtype))
            except ContenderError as error:
                failed[loader.key] = str(error)
        for number in range(rounds + 1):
            print(f"end_to_end: {dtype}, epoch {number} of {rounds}", file=sys.stderr)
            for key, contender in list(contenders.items()):
                try:
                    figures = contender.epoch()
                except ContenderError as error:
                    failed[key] = str(error)
                    del contenders[key]
                    continue
                if abs(figures["samples"] - photos) >= batch:  # DALI's epochs end with a minibatch
                    failed[key] = f"{figures['samples']} samples of {photos}"
                epochs.setdefault(key, []).append(figures)
    return epochs, failed


def rates(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples/s: median and range; cores busy."""
    each = [e["samples"] / e["seconds"] for e in epochs]
    return {
        "median": statistics.median(each),
        "range": [min(each), max(each)],
        "cores": statistics.median(e["cpu_seconds"] / e["seconds"] for e in epochs),
    }


def measure(options: argparse.Namespace, folder: Path, dtype: str) -> dict[str, Any]:
    """One table."""
    photos = sum(1 for _ in paths_of(folder))
    left_out: dict[str, str] = {}
    loaders, tried = [], {}
    for loader in TORCHS:
        if loader.peer and not PEERS_PYTHON.exists():
            continue
        print(f"end_to_end: {dtype}, workers of {loader.key}", file=sys.stderr)
        chosen, tried[loader.key] = best_workers(loader, folder, options.batch, dtype)
        loaders.append(chosen)
    loaders += [loader for loader in OTHERS if PEERS_PYTHON.exists() or not loader.peer]
    if not PEERS_PYTHON.exists():
        why = "no .venv-peers: python benchmarks/prep.py --peers sets it up"
        left_out = {loader.key: why for loader in (*TORCHS, *OTHERS) if loader.peer}
    first: dict[str, list[dict[str, Any]]] = {}
    later: dict[str, list[dict[str, Any]]] = {}
    for number in range(options.starts):
        rounds = options.rounds if number == 0 else 0
        epochs, failed = run_once(loaders, folder, options.batch, dtype, rounds, photos)
        left_out |= failed
        for key, figures in epochs.items():
            first.setdefault(key, []).append(figures[0])
            later.setdefault(key, []).extend(figures[1:])
    rows = [
        {
            "key": loader.key,
            "label": loader.label,
            "first": rates(first[loader.key]),
            "later": rates(later[loader.key]),
            "epochs": later[loader.key],
        }
        for loader in loaders
        if loader.key not in left_out
    ]
    return {"dtype": dtype, "rows": rows, "seconds_by_workers": tried, "left_out": left_out}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    with pictures.linked(pictures.folder("ImageNet-like"), options.photos, options.seed) as folder:
        for path in paths_of(folder):
            Path(path).read_bytes()  # into the page cache
        tables = [measure(options, folder, dtype) for dtype in options.dtypes]
    return {
        **question.head("end_to_end", QUESTION, options),
        "photos": options.photos,
        "batch": options.batch,
        "tables": tables,
    }


def _row(row: dict[str, Any], best: dict[str, float]) -> str:
    first, later = row["first"], row["later"]
    cells = [
        row["label"],
        f"{first['median']:,.0f} ({first['range'][0]:,.0f}–{first['range'][1]:,.0f})",
        f"{first['median'] / best['first']:.2f}",
        f"{later['median']:,.0f} ({later['range'][0]:,.0f}–{later['range'][1]:,.0f})",
        f"{later['median'] / best['later']:.2f}",
        f"{later['cores']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def markdown(result: dict[str, Any]) -> str:
    """One table for each type of pixel."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['photos']:,} photographs in the page cache, minibatches of {result['batch']}; "
        f"{result['date']}. Samples/s, median (least–most). x torch: against the best torch "
        "variant of the table. CPU: cores busy from the second epoch on, of two.",
        "",
    ]
    for table in result["tables"]:
        torchs = [row for row in table["rows"] if row["key"] in {t.key for t in TORCHS}]
        best = {when: max(row[when]["median"] for row in torchs) for when in ("first", "later")}
        lines += [
            f"## {table['dtype']}",
            "",
            "| loader | first epoch | x torch | later epochs | x torch | CPU |",
            "|---|---|---|---|---|---|",
            *(_row(row, best) for row in table["rows"]),
            "",
            *(f"Left out: {key}: {why}\n" for key, why in table["left_out"].items()),
        ]
    return "\n".join([*lines, f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes end_to_end.json and end_to_end.md, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--photos", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="epochs after the first")
    parser.add_argument("--starts", type=int, default=3, help="first epochs")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=[*DTYPES])
    options = question.parsed(parser, arguments)
    result = run(options)
    question.publish("end_to_end", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
