"""What does it cost to feed several jobs on one machine that read the same data set?

Measured: 1, 2, 4 and 8 jobs at a time, each a process with a loader of its own over one image
folder of real photographs, all in the page cache (RandomResizedCrop, flip, normalise to 3x224x224):
torch's DataLoader with Pillow, coordl alone, and coordl in a group. Samples/s over all jobs; CPU
seconds of all their processes in an epoch that each makes once, imports left out; samples prepared
per sample of the data set; bytes read from files; memory of the staging area. With --rate each job
has an emulated accelerator of so many samples/s. Every start is a warm-up epoch, then one that
counts; kinds and numbers of jobs take turns, a round of all, median and range over the rounds.
Not measured: storage (all is in the page cache; bytes read say what a cold one would be asked for);
jobs at different speeds; real accelerators.
Bias: ours. TensorSocket lives in .venv-peers (see prep.py) and goes by its page, but that it sends
minibatches by twos, which went better here than its eights (one by one, 0.0.5 fails). Its CPU
seconds are of producer and jobs; it counts no samples prepared. Jobs of it that have not ended two
epochs after --limit seconds are ended, and not tried again in later rounds.

    python benchmarks/coordinated.py [--photos 2400] [--rounds 5] [--jobs 1 2 4 8]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.loaders import tensorsocket_jobs  # noqa: E402
from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.peers.link import PEERS_PYTHON  # noqa: E402
from benchmarks.storage.contender import Contender, ContenderError, cpu_seconds, paths_of  # noqa: E402

QUESTION = __doc__.splitlines()[0]
KINDS = {
    "stock": "torch DataLoader, a loader for each job",
    "tensorsocket": "torch DataLoader behind TensorSocket",
    "alone": "coordl, a loader for each job",
    "group": "coordl, one group",
}


def epoch_of(jobs: list[Contender]) -> dict[str, Any]:
    """One epoch of all at once. Seconds are the slowest job's; the rest are sums."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        figures = list(pool.map(lambda job: job.epoch(), jobs))
    summed = ("samples", "prepared", "cpu_seconds", "storage_bytes")
    return {
        "seconds": max(each["seconds"] for each in figures),
        **{name: sum(each.get(name, 0) for each in figures) for name in summed},
        "staging_bytes": max(each.get("staging_bytes", 0) for each in figures),
    }


@contextmanager
def producer(folder: Path, ports: str, options: argparse.Namespace) -> Iterator[int]:
    """TensorSocket's: its process."""
    program = [str(PEERS_PYTHON), "-m", "benchmarks.loaders.tensorsocket_jobs", "produce"]
    program += [str(folder), str(options.batch), options.dtype, str(options.workers), ports]
    process = subprocess.Popen(program, cwd=HERE.parent, stdin=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def of_tensorsocket(count: int, folder: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """once(), of it; None: they did not end in time."""
    ports = tensorsocket_jobs.free_ports()
    arguments = ["consume", str(options.batch), str(options.rate), ports]
    module = "benchmarks.loaders.tensorsocket_jobs"
    with producer(folder, ports, options) as pid, ExitStack() as stack:
        jobs = [
            stack.enter_context(Contender(str(PEERS_PYTHON), module, arguments))
            for _ in range(count)
        ]
        enough = threading.Timer(options.limit, lambda: [job.kill() for job in jobs])
        enough.start()
        try:
            epoch_of(jobs)
            before = cpu_seconds(pid)
            epoch = epoch_of(jobs)
        except ContenderError as error:
            print(f"coordinated: {error}", file=sys.stderr)
            return None
        finally:
            enough.cancel()
        epoch["cpu_seconds"] += cpu_seconds(pid) - before
        return epoch


def once(kind: str, count: int, folder: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """`count` fresh jobs: their second epoch."""
    if kind == "tensorsocket":
        return of_tensorsocket(count, folder, options)
    group = f"bench-{os.getpid()}-{count}"
    arguments = [str(folder), str(options.batch), options.dtype, kind, str(options.workers)]
    arguments += [group, str(options.rate)]
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(Contender(sys.executable, "benchmarks.loaders.jobs", arguments))
            for _ in range(count)
        ]
        epoch_of(jobs)
        return epoch_of(jobs)


def summary(epochs: list[dict[str, Any]], photos: int) -> dict[str, Any]:
    """Of one kind and number of jobs; of jobs that did not end, that."""
    if not epochs:
        return {"epochs": []}

    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    rates = [each["samples"] / each["seconds"] for each in epochs]
    return {
        "rate": median(rates),
        "range": [min(rates), max(rates)],
        "cpu_seconds": median(each["cpu_seconds"] for each in epochs),
        "prepared": median(each["prepared"] / photos for each in epochs),
        "storage_bytes": median(each["storage_bytes"] for each in epochs),
        "staging_bytes": max(each["staging_bytes"] for each in epochs),
        "epochs": epochs,
    }


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Everything, as JSON has it, after each round: one takes minutes."""
    kinds = [k for k in options.kinds if k != "tensorsocket" or PEERS_PYTHON.exists()]
    cases = [(kind, count) for count in options.jobs for kind in kinds]
    epochs: dict[tuple[str, int], list[dict[str, Any]]] = {case: [] for case in cases}
    going = set(cases)
    with pictures.linked(pictures.folder("ImageNet-like"), options.photos, options.seed) as folder:
        for path in paths_of(folder):
            Path(path).read_bytes()  # into the page cache
        for number in range(options.rounds):
            for kind, count in cases:
                print(f"coordinated: round {number}, {count} {kind}", file=sys.stderr)
                found = once(kind, count, folder, options) if (kind, count) in going else None
                if found is None:
                    going.discard((kind, count))
                else:
                    epochs[kind, count].append(found)
            rows = [
                {"kind": kind, "jobs": count, **summary(epochs[kind, count], options.photos)}
                for kind, count in cases
            ]
            yield {
                **question.head("coordinated", QUESTION, options),
                "photos": options.photos,
                "batch": options.batch,
                "dtype": options.dtype,
                "workers": options.workers,
                "rate": options.rate,
                "limit": options.limit,
                "rounds": number + 1,
                "rows": rows,
            }


def markdown(result: dict[str, Any]) -> str:
    """One table, jobs by jobs."""
    accelerator = f"{result['rate']:,.0f} samples/s a job" if result["rate"] else "none"
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['photos']:,} photographs in the page cache, minibatches of {result['batch']}, "
        f"{result['dtype']}, {result['workers']} workers a job, emulated accelerator: "
        f"{accelerator}; {result['date']}. Median of {result['rounds']} rounds (least–most). "
        "Per epoch that every job makes once: CPU seconds of all processes; x prepared: samples "
        "prepared for each of the data set; read: bytes from files, where the loader counts them.",
        "",
        "| jobs | loader | samples/s, all jobs | CPU s | x prepared | read, MB | staging, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if not row["epochs"]:
            ended = f"did not end two epochs in {result['limit']:.0f} s"
            lines.append(f"| {row['jobs']} | {KINDS[row['kind']]} | {ended} |  |  |  |  |")
            continue
        low, high = row["range"]
        cells = [
            str(row["jobs"]),
            KINDS[row["kind"]],
            f"{row['rate']:,.0f} ({low:,.0f}–{high:,.0f})",
            f"{row['cpu_seconds']:.2f}",
            f"{row['prepared']:.2f}" if row["prepared"] else "",
            f"{row['storage_bytes'] / 1e6:,.0f}" if row["storage_bytes"] else "",
            f"{row['staging_bytes'] / 1e6:,.0f}" if row["staging_bytes"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes coordinated.json and coordinated.md after each round, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--photos", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "uint8"), default="uint8")
    parser.add_argument("--workers", type=int, default=2, help="of each job")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--limit", type=float, default=90, help="seconds for TensorSocket's jobs")
    parser.add_argument("--rate", type=float, default=0, help="samples/s of each accelerator")
    parser.add_argument("--rounds", type=int, default=5)
    options = question.parsed(parser, arguments)
    for result in run(options):
        question.publish("coordinated", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
