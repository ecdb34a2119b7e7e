"""How long after `kill -9` of a worker does the training loop hear of it, and what?

Measured: milliseconds from a worker's SIGKILL of itself, in the middle of its sample, to the error
in the loop; coordl's DataLoader and torch's by turns, two workers, samples that are text.
Not measured: hangs (the watchdog says so after a while), out-of-memory kills.
Bias: none known; the processes are young and small.

    python benchmarks/killed_worker.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch.utils.data

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

import coordl  # noqa: E402
from benchmarks.peers import machine, question  # noqa: E402

QUESTION = (__doc__ or "").splitlines()[0]
LOADERS = {"torch": torch.utils.data.DataLoader, "coordl": coordl.DataLoader}


class Killing(torch.utils.data.Dataset):
    """Kills its process at sample 40, having told the time."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> str:
        if index == 40:
            os.write(self.pipe, repr(time.monotonic()).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        return str(index)


def once(loader: Any) -> tuple[float, str]:
    """(Milliseconds, what was said)."""
    told, tell = os.pipe()
    try:
        list(loader(Killing(tell), 4, num_workers=2))
    except RuntimeError as error:
        heard, said = time.monotonic(), str(error)
    killed = float(os.read(told, 64))
    os.close(told)
    os.close(tell)
    return (heard - killed) * 1e3, said


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    found: dict[str, list[tuple[float, str]]] = {name: [] for name in LOADERS}
    for _ in range(options.rounds):
        for name, loader in LOADERS.items():
            found[name].append(once(loader))
    rows = [
        {"loader": name, "ms": [ms for ms, _ in each], "said": each[0][1]}
        for name, each in found.items()
    ]
    return {**question.head("killed_worker", QUESTION, options), "rows": rows}


def markdown(result: dict[str, Any]) -> str:
    """One table."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['date']}. Median (least–most).",
        "",
        "| loader | ms | it says |",
        "|---|---|---|",
    ]
    for row in result["rows"]:
        ms, said = row["ms"], " ".join(row["said"].split())
        shown = f"{statistics.median(ms):.0f} ({min(ms):.0f}–{max(ms):.0f})"
        lines.append(f"| {row['loader']} | {shown} | {said} |")
    return "\n".join([*lines, "", f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes killed_worker.json and killed_worker.md, prints the latter."""
    parser = question.parser_of(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=7)
    options = question.parsed(parser, arguments)
    result = run(options)
    question.publish("killed_worker", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
