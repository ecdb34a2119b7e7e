"""Do jobs of a group with other batch sizes and speeds hold each other up?

Measured: four jobs over one image folder of real photographs, all in the page cache
(RandomResizedCrop, flip, normalise to 3x224x224, uint8): minibatches of 32, 64 and 96, and of 64 at
half the speed, which falls further behind than the staging area holds. Each alone in a group of its
own, then all four in one, at the same time until the slowest has made its epochs; the accelerators
are emulated. Once with accelerators that bind, once with none but the slow one's, so that prep on
this machine's cores binds. Samples/s of each job; samples prepared, for the group or for one job
alone, per sample that was yielded. The first epoch of each start is left out; rounds take turns,
median and range over the rounds.
Not measured: storage, real accelerators.
Bias: ours, and no peer: torch's loaders and coordl's without a group share nothing by which they
could hold each other up but the cores (coordinated.py has those).

    python benchmarks/mixed_jobs.py [--photos 1600] [--rate 300] [--epochs 3] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.storage.contender import Contender, paths_of  # noqa: E402

QUESTION = __doc__.splitlines()[0]
BINDS = {"accelerator": "Accelerators bind", "prep": "Prep binds"}


@dataclass(frozen=True)
class Job:
    """Its minibatches, and its accelerator's speed as a share of the fast ones'."""

    batch: int
    speed: float = 1.0


JOBS = (Job(32), Job(64), Job(96), Job(64, speed=0.5))


def rate_of(job: Job, binds: str, rate: float) -> float:
    """Samples/s of its accelerator; 0: as fast as they come."""
    return job.speed * rate if binds == "accelerator" or job.speed < 1 else 0.0


class Epochs:
    """Has jobs run epochs, all at the same time, until each has made so many."""

    def __init__(self, jobs: list[Contender], least: int) -> None:
        self._least = least
        self._made: list[list[dict[str, Any]]] = [[] for _ in jobs]
        self._errors: list[Exception] = []
        threads = [
            threading.Thread(target=self._go_on, args=(job, made))
            for job, made in zip(jobs, self._made, strict=True)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if self._errors:
            raise self._errors[0]

    def _is_enough(self) -> bool:
        return bool(self._errors) or all(len(made) >= self._least for made in self._made)

    def _go_on(self, job: Contender, made: list[dict[str, Any]]) -> None:
        try:
            while not self._is_enough():
                made.append({**job.epoch(), "ended": time.monotonic()})
        except Exception as error:
            self._errors.append(error)

    def figures(self) -> list[dict[str, float]]:
        """Of each job, over the epochs that ended before the last job had made its own."""
        end = max(made[self._least - 1]["ended"] for made in self._made)
        found = []
        for made in self._made:
            counted = [each for each in made if each["ended"] <= end]
            samples = sum(each["samples"] for each in counted)
            found.append(
                {
                    "rate": samples / sum(each["seconds"] for each in counted),
                    "samples": samples,
                    "prepared": sum(each["prepared"] for each in counted),
                }
            )
        return found


def run_together(
    jobs: list[Job], binds: str, name: str, folder: Path, options: argparse.Namespace
) -> list[dict[str, float]]:
    """Figures of each, all in one group."""
    with ExitStack() as stack:
        started = []
        for job in jobs:
            arguments = [str(folder), str(job.batch), "uint8", "group", str(options.workers), name]
            arguments += [str(rate_of(job, binds, options.rate)), options.staging]
            program = Contender(sys.executable, "benchmarks.loaders.jobs", arguments)
            started.append(stack.enter_context(program))
        Epochs(started, 1)
        return Epochs(started, options.epochs).figures()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    cases = []
    with pictures.linked(pictures.folder("ImageNet-like"), options.photos, options.seed) as folder:
        for path in paths_of(folder):
            Path(path).read_bytes()  # into the page cache
        rounds: dict[str, list[dict[str, Any]]] = {binds: [] for binds in BINDS}
        for number in range(options.rounds):
            for binds in BINDS:
                print(f"mixed_jobs: round {number}, {binds} binds", file=sys.stderr)
                name = f"mixed-{os.getpid()}-{number}-{binds}"
                alone = [
                    run_together([job], binds, f"{name}-{at}", folder, options)[0]
                    for at, job in enumerate(JOBS)
                ]
                together = run_together(list(JOBS), binds, name, folder, options)
                rounds[binds].append({"alone": alone, "together": together})
        for binds in BINDS:
            cases.append({"binds": binds, **summary(rounds[binds]), "rounds": rounds[binds]})
    return {
        **question.head("mixed_jobs", QUESTION, options),
        "photos": options.photos,
        "rate": options.rate,
        "staging": options.staging,
        "workers": options.workers,
        "epochs": options.epochs,
        "cases": cases,
    }


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and ranges of one case."""
    rows = []
    for at, job in enumerate(JOBS):
        alone, together = ([each[how][at] for each in rounds] for how in ("alone", "together"))
        shares = [b["rate"] / a["rate"] for a, b in zip(alone, together, strict=True)]
        rows.append(
            {
                "batch": job.batch,
                "speed": job.speed,
                "alone": statistics.median(each["rate"] for each in alone),
                "together": statistics.median(each["rate"] for each in together),
                "share": statistics.median(shares),
                "share_range": [min(shares), max(shares)],
            }
        )
    per_sample = [
        sum(job["prepared"] for job in each["together"])
        / sum(job["samples"] for job in each["together"])
        for each in rounds
    ]
    return {"rows": rows, "prepared": statistics.median(per_sample)}


def markdown(result: dict[str, Any]) -> str:
    """A table for each case."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['photos']:,} photographs in the page cache, staging={result['staging']}, "
        f"{result['workers']} workers a job, {result['epochs']} epochs of the slowest; "
        f"{result['date']}. Median of the rounds (least–most).",
        "",
    ]
    for case in result["cases"]:
        lines += [f"## {BINDS[case['binds']]}", ""]
        lines += ["| minibatch | accelerator | samples/s alone | together | together / alone |"]
        lines += ["|---|---|---|---|---|"]
        for row in case["rows"]:
            rate = rate_of(Job(row["batch"], row["speed"]), case["binds"], result["rate"])
            low, high = row["share_range"]
            lines.append(
                f"| {row['batch']} | {f'{rate:,.0f} samples/s' if rate else 'none'} "
                f"| {row['alone']:,.0f} | {row['together']:,.0f} "
                f"| {row['share']:.2f} ({low:.2f}–{high:.2f}) |"
            )
        lines += ["", f"Together: {case['prepared']:.2f} samples prepared per sample yielded.", ""]
    return "\n".join([*lines, f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes mixed_jobs.json and mixed_jobs.md, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--photos", type=int, default=1600)
    parser.add_argument("--rate", type=float, default=300, help="samples/s of a fast accelerator")
    parser.add_argument("--staging", default="64MiB")
    parser.add_argument("--workers", type=int, default=2, help="of each job")
    parser.add_argument("--epochs", type=int, default=3, help="of each job at least, that count")
    parser.add_argument("--rounds", type=int, default=3)
    options = question.parsed(parser, arguments)
    result = run(options)
    question.publish("mixed_jobs", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
