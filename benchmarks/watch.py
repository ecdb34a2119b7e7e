"""What does it cost a job that `dsanalyzer watch` looks on?

Measured: the same training of a small net on the CPU (trainer.py: pictures, workers, optimizer) as
it is, as it is once more, and watched, by turns; epochs after the first, in seconds. Watched
against as it is, in pairs of one round: median and 95 % interval (bootstrap over the rounds). The
same of the two that are as they are is the noise floor (A/A). Where that is wider than the cost,
the cost is bounded by events times what one costs: a loop over minibatches that are there already,
with and without the hooks, gives microseconds a minibatch.
Not measured: a GPU; several ranks, each of which sends its own message a second.
Bias: a small net, so that minibatches come fast (some 15 a second) and weigh more than elsewhere.

    python benchmarks/watch.py [--photos 800] [--rounds 7] [--epochs 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.storage.contender import paths_of  # noqa: E402

QUESTION = (__doc__ or "").splitlines()[0]
JOB = HERE / "loaders" / "trainer.py"
LOOP = """
import json, sys, time, torch
from torch.utils.data import DataLoader, Dataset

class Ready(Dataset):
    def __len__(self): return 1
    def __getitem__(self, index): return torch.zeros(1)

weight = torch.nn.Parameter(torch.zeros(1))
optimizer = torch.optim.SGD([weight], 0.1)

class Repeated(DataLoader):
    def __iter__(self):
        batch = torch.zeros(64, 1)
        return iter([batch] * 20000)

loader, seconds = Repeated(Ready()), []
for _ in range(6):
    begin = time.perf_counter()
    for batch in loader:
        pass
    seconds.append(time.perf_counter() - begin)
print(json.dumps(min(seconds) / 20000))
"""
WATCHED = [sys.executable, "-m", "dsanalyzer", "watch", "--"]


def told(words: list[str]) -> Any:
    """What a program says as JSON."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if done.returncode:
        raise SystemExit(f"watch: {words} ended with exit code {done.returncode}")
    return json.loads(next(line for line in done.stdout.splitlines() if line[:1] in "{0123456789"))


def seconds_of(watched: bool, folder: Path, options: argparse.Namespace) -> float:
    """Of an epoch, the first left out."""
    job = [sys.executable, str(JOB), str(folder), "--timed", str(options.epochs + 1)]
    return statistics.mean(told([*(WATCHED if watched else []), *job])["seconds"][1:])


def interval(ratios: list[float]) -> dict[str, float]:
    """Median of the ratios less one, and its 95 % interval."""
    draws = np.random.default_rng(0).choice(ratios, (4000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {"median": statistics.median(ratios) - 1, "low": low - 1, "high": high - 1}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    rounds = []
    with pictures.linked(pictures.folder("ImageNet-like"), options.photos, options.seed) as folder:
        for path in paths_of(folder):
            Path(path).read_bytes()  # into the page cache
        for number in range(options.rounds):
            print(f"watch: round {number + 1} of {options.rounds}", file=sys.stderr)
            kinds = ["plain", "watched", "again"]
            kinds = kinds[number % 3 :] + kinds[: number % 3]
            rounds.append({kind: seconds_of(kind == "watched", folder, options) for kind in kinds})
    loop = [sys.executable, "-c", LOOP]
    bare = min(told(loop) for _ in range(3))
    hooked = min(told([*WATCHED, *loop]) for _ in range(3))
    per_s = options.photos // 32 / statistics.median(each["plain"] for each in rounds)
    return {
        **question.head("watch", QUESTION, options),
        "photos": options.photos,
        "rounds": rounds,
        "cost": interval([each["watched"] / each["plain"] for each in rounds]),
        "floor": interval([each["again"] / each["plain"] for each in rounds]),
        "minibatches_per_s": per_s,
        "us_per_minibatch": (hooked - bare) * 1e6,
        "bound": (hooked - bare) * per_s,
    }


def markdown(result: dict[str, Any]) -> str:
    """Three lines."""

    def words(found: dict[str, float]) -> str:
        return f"{found['median']:+.2%} ({found['low']:+.2%} to {found['high']:+.2%})"

    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['photos']:,} photographs, {result['minibatches_per_s']:.1f} minibatches of 32 a "
        f"second, {len(result['rounds'])} rounds; {result['date']}. Time of an epoch against the "
        "job as it is, median (95 % interval).",
        "",
        "| | time of an epoch |",
        "|---|---|",
        f"| watched | {words(result['cost'])} |",
        f"| as it is, once more (noise floor) | {words(result['floor'])} |",
        f"| bound: {result['us_per_minibatch']:.1f} us a minibatch | {result['bound']:.4%} |",
    ]
    return "\n".join([*lines, "", f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes watch.json and watch.md, prints the latter."""
    parser = question.parser_of(__doc__ or "")
    parser.add_argument("--photos", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=3, help="that count, of each run")
    options = question.parsed(parser, arguments)
    result = run(options)
    question.publish("watch", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
