"""A training script whose stalls are known: known.py FOLDER --prep-ms P --cold-ms C --step-ms S

A sample takes a worker P ms of prep, and C ms more where its file is not in memory; a step takes S
ms with its little model, and --optimizer-ms of them in the optimizer. All of that is spent asleep,
so that cores do not matter, and files are read and not decoded. What a worker does besides
(opening, collating, sending) comes out of the next sample's sleep, so that it is as fast as said.
So with W workers and minibatches of B a sample of an epoch takes the longest of S / B, and
P / W (or (P + C) / W), as truth() has it.

The script is its own: nothing in it knows of a tool, but for --evaluator MODE FILE, which puts
DALI's LoaderEvaluator around the loader, and --traceml, which turns TraceML on and marks its
steps, as their pages tell users to.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import glob
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

BATCH, WORKERS = 16, 2
_libc = ctypes.CDLL(None, use_errno=True)
_CACHESTAT = 451


@dataclass(frozen=True)
class Truth:
    """Of a sample in an epoch that reads all from storage: seconds."""

    compute_s: float
    prep_stall_s: float
    fetch_stall_s: float

    @property
    def total_s(self) -> float:
        return self.compute_s + self.prep_stall_s + self.fetch_stall_s


def truth(prep_ms: float, cold_ms: float, step_ms: float) -> Truth:
    """What the script's epochs are made of when nothing is in memory."""
    step, prep, cold = (
        each / 1e3 for each in (step_ms / BATCH, prep_ms / WORKERS, (prep_ms + cold_ms) / WORKERS)
    )
    return Truth(step, max(step, prep) - step, max(step, prep, cold) - max(step, prep))


def is_resident(file: int) -> bool:
    """Whether any of the file is in memory. Raises OSError: a kernel before 6.5."""
    # (A read with RWF_NOWAIT would have it read, and find it there at times.)
    whole, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    if _libc.syscall(_CACHESTAT, file, whole, found, 0):
        raise OSError(ctypes.get_errno(), "cachestat")
    return found[0] > 0


class Files(Dataset):
    """Each file is a sample."""

    def __init__(self, folder: str, prep_ms: float, cold_ms: float) -> None:
        self.paths = sorted(glob.glob(f"{folder}/**/*.jpg", recursive=True))
        self.prep_s, self.cold_s = prep_ms / 1e3, cold_ms / 1e3
        self.due = 0.0  # of this worker's last sample

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with open(self.paths[index], "rb") as file:
            takes_s = self.prep_s + (0 if is_resident(file.fileno()) else self.cold_s)
            size = len(file.read())
        now = time.perf_counter()
        self.due = max(self.due + takes_s, now + takes_s / 2)
        time.sleep(self.due - now)
        return torch.full((8,), float(size % 7)), 0


class SlowSGD(torch.optim.SGD):
    """Takes `sleeps_s` besides."""

    sleeps_s = 0.0

    def step(self, closure: Any = None) -> Any:
        time.sleep(self.sleeps_s)
        return super().step(closure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--prep-ms", type=float, default=0)
    parser.add_argument("--cold-ms", type=float, default=0)
    parser.add_argument("--step-ms", type=float, default=0)
    parser.add_argument("--optimizer-ms", type=float, default=0)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--evaluator", nargs=2, metavar=("MODE", "FILE"))
    parser.add_argument("--traceml", action="store_true")
    args = parser.parse_args()
    data = Files(args.folder, args.prep_ms, args.cold_ms)
    loader: Any = DataLoader(data, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS)
    if args.evaluator:
        from nvidia.dali.plugin.pytorch.loader_evaluator import LoaderEvaluator

        loader = LoaderEvaluator(loader, mode=args.evaluator[0], metrics_file=args.evaluator[1])
    model = nn.Linear(8, 2)
    optimizer = SlowSGD(model.parameters(), lr=1e-6)
    optimizer.sleeps_s = args.optimizer_ms / 1e3
    marked: Any = contextlib.nullcontext
    if args.traceml:
        import traceml_ai

        traceml_ai.init()
        marked = functools.partial(traceml_ai.trace_step, model)
    for _ in range(args.epochs):
        for values, labels in loader:
            with marked():
                due = time.perf_counter() + args.step_ms / 1e3
                loss = nn.functional.cross_entropy(model(values), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                time.sleep(max(0.0, due - time.perf_counter()))
    if args.evaluator:
        loader.save_metrics()


if __name__ == "__main__":
    main()
