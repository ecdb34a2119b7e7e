"""What does a minibatch cost beyond its bytes?

A data set whose samples are there already (one tensor, 3 x 224 x 224) through torch's DataLoader,
coordl's, SPDL and a plain loop. Measured, in turns, every contender in a process of its own:

- per minibatch: wall time of a minibatch once the epoch runs, dropped by the loop at once;
- beyond the bytes: that, less what stacking the samples into memory that is used again takes. That
  memory is always the same, so uint8 stays in the CPU's caches. The ring's row stacks into four
  buffers in turns, as who prepares ahead must: what it takes more is memory's time, not a loader's;
- first batch: from making the iterator, workers included, to its first minibatch;
- seam: from the last minibatch of an epoch to the first of the next, with the iterator between.

torch and coordl with worker processes, not persistent and persistent; SPDL's DataLoader with as
many threads, a minibatch being one unit of its work, in order. Not measured: storage, decoding,
what a training step does meanwhile; a loop that computes hides most of this on idle cores.

Usage: python benchmarks/overhead.py [--rounds 7] [--out benchmarks/results] [--note TEXT]
SPDL wants .venv-peers (python -m benchmarks.peers.environment); without it that row is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH = 64
SHAPE = (3, 224, 224)
MINIBATCHES = 60  # of an epoch
DTYPES = ("uint8", "float32")
QUESTION = "What does a minibatch cost beyond its bytes?"
RING = 4  # buffers: fewer cannot be prefetched into
CONTENDERS = (
    "loop",
    "ring",
    *(f"{name}:{n}" for n in (1, 2) for name in ("torch", "torch-persistent")),
    *(f"{name}:{n}" for n in (1, 2) for name in ("coordl", "coordl-persistent")),
    "spdl:1",
    "spdl:2",
)
FIGURES = ("per_minibatch_ms", "beyond_bytes_ms", "first_batch_ms", "seam_ms")


# -- one contender, in its process ---------------------------------------------------------------


class Trivial:
    """Every sample is the same tensor."""

    def __init__(self, dtype: str) -> None:
        import torch

        self.sample = torch.full(SHAPE, 3, dtype=getattr(torch, dtype))

    def __len__(self) -> int:
        return BATCH * MINIBATCHES

    def __getitem__(self, index: int) -> Any:
        return self.sample


def epochs_of(contender: str, dtype: str) -> Callable[[], Iterable[Any]]:
    """What gives a fresh pass over the data set."""
    name, _, workers = contender.partition(":")
    data = Trivial(dtype)
    if name == "spdl":
        import torch
        from spdl.dataloader import DataLoader as Spdl

        orders = [range(i * BATCH, (i + 1) * BATCH) for i in range(MINIBATCHES)]
        loader: Any = Spdl(
            orders,
            preprocessor=lambda order: torch.stack([data[i] for i in order]),
            num_threads=int(workers),
            output_order="input",
        )
        return lambda: iter(loader)
    if name in ("loop", "ring"):
        import torch

        buffers = RING if name == "ring" else 1
        reused = [torch.empty((BATCH, *SHAPE), dtype=data.sample.dtype) for _ in range(buffers)]

        def stacked() -> Iterable[Any]:
            for i in range(0, len(data), BATCH):
                out = reused[i // BATCH % buffers]
                yield torch.stack([data[j] for j in range(i, i + BATCH)], out=out)

        return stacked
    from torch.utils.data import DataLoader

    kind: Any = DataLoader
    if name.startswith("coordl"):
        from coordl import DataLoader as kind
    loader = kind(
        data, BATCH, num_workers=int(workers), persistent_workers=name.endswith("persistent")
    )
    return lambda: iter(loader)


def epoch(begin: Callable[[], Iterable[Any]]) -> tuple[float, float, float]:
    """Seconds to the first minibatch, seconds of each further one, and the clock at the last."""
    start = time.perf_counter()
    first = last = start
    for number, _ in enumerate(begin()):
        last = time.perf_counter()
        if number == 0:
            first = last
    return first - start, (last - first) / (MINIBATCHES - 1), last


def serve(contender: str, dtype: str) -> None:
    """Answers every line read with the figures of two epochs."""
    import torch

    torch.set_num_threads(1)
    begin = epochs_of(contender, dtype)
    epoch(begin)  # libraries load, pools fill
    print("ready", flush=True)
    for _ in sys.stdin:
        first, _, last = epoch(begin)
        start = time.perf_counter()
        seam, each, _ = epoch(begin)
        told = {
            "per_minibatch_ms": 1e3 * each,
            "first_batch_ms": 1e3 * first,
            "seam_ms": 1e3 * (seam + start - last),
        }
        print(json.dumps(told), flush=True)


# -- the driver ----------------------------------------------------------------------------------


class Contender:
    """A process with one of them."""

    def __init__(self, name: str, dtype: str) -> None:
        from benchmarks.peers.link import PEERS_PYTHON

        python = PEERS_PYTHON if name.startswith("spdl") else sys.executable
        self.name = name
        self.rounds: list[dict[str, float]] = []
        self.process = subprocess.Popen(
            [str(python), __file__, "--contender", name, dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        if self._line() != "ready":
            raise RuntimeError(f"{name} could not begin")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self) -> dict[str, float]:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return json.loads(self._line())  # type: ignore[no-any-return]

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(dtype: str, rounds: int, only: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Median, least and largest of every figure by contender; who was left out and why."""
    contenders, left_out = [], {}
    for name in CONTENDERS:
        if only and name.partition(":")[0] not in (*only, "loop"):
            continue
        try:
            contenders.append(Contender(name, dtype))
        except (OSError, RuntimeError) as error:
            left_out[name] = str(error)
    for number in range(rounds):
        told = {}
        turn = number % len(contenders)  # nobody always runs after the same one
        for one in [*contenders[turn:], *contenders[:turn]]:
            told[one.name] = one.ask()
        bytes_ms = told["loop"]["per_minibatch_ms"]
        for one in contenders:
            figures = told[one.name]
            figures["beyond_bytes_ms"] = figures["per_minibatch_ms"] - bytes_ms
            one.rounds.append(figures)
    for one in contenders:
        one.end()
    results = {
        one.name: {
            figure: {
                "median": statistics.median(r[figure] for r in one.rounds),
                "min": min(r[figure] for r in one.rounds),
                "max": max(r[figure] for r in one.rounds),
            }
            for figure in FIGURES
        }
        for one in contenders
    }
    return results, left_out


def markdown(result: dict[str, Any]) -> str:
    """The tables."""
    from benchmarks.peers import machine

    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"Minibatches of {BATCH} x {' x '.join(map(str, SHAPE))}, samples that cost nothing; ms, "
        f"median (least … largest) of {result['rounds']} rounds in turns, after a warm-up. Beyond "
        "the bytes: less what stacking into memory used again takes (the loop's row). The number "
        "is that of workers, of threads for SPDL.",
        "",
    ]
    for dtype, results in result["results"].items():
        lines += [
            f"## {dtype}",
            "",
            "| loader | per minibatch | beyond the bytes | first batch | seam |",
            "|---|---|---|---|---|",
        ]
        for name, figures in results.items():
            cells = [
                f"{f['median']:.2f} ({f['min']:.2f} … {f['max']:.2f})"
                for f in (figures[figure] for figure in FIGURES)
            ]
            lines.append(f"| {name.replace(':', ', ')} | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"Left out: {name}: {why}." for name, why in result["left_out"].items()]
    lines += ["Made by `python benchmarks/overhead.py`; the script says what is not measured."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[], help="such as torch-persistent coordl")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--note", default="", help="what else ran, if the machine was not idle")
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        serve(*options.contender)
        return
    from benchmarks.peers import machine

    results, left_out = {}, {}
    for dtype in DTYPES:
        results[dtype], missing = measure(dtype, options.rounds, options.only)
        left_out |= missing
    result = {
        "question": QUESTION,
        "machine": machine.describe(options.note),
        "rounds": options.rounds,
        "minibatches": MINIBATCHES,
        "results": results,
        "left_out": left_out,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "overhead.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "overhead.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
