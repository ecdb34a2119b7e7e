"""How fast native prep is here, on given pictures: what `coordl rates` measures.

It runs the loader's own threads over items held in memory, so the figure holds for cached epochs;
storage, collation and the consumer are left out.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from coordl import _native
from coordl.errors import CoordlError
from coordl.fetch.cache import MinIOCache
from coordl.fetch.item import Items, identify
from coordl.prep.plan import Plan, format_names

SCHEMA = "coordl.rates/1"
BLOCKS = 12
MINIBATCH = 64
FILES_LIMIT_BYTES = 512 << 20  # a sample of a large data set says as much
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PrepRate:
    """Samples prepared per second: mean over blocks, 95 % bootstrap interval of that mean.

    Attributes:
        files: files measured. skipped: those the native pass does not take or that could not be
            read. crop: (height, width) in pixels. form: of the items in memory. expansion: bytes
            they take there over those of their files.
    """

    value: float
    low: float
    high: float
    threads: int
    files: int
    skipped: int
    crop: tuple[int, int]
    form: str = "original"
    expansion: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        interval = {"value": self.value, "low": self.low, "high": self.high, "unit": "samples/s"}
        return {
            "schema": SCHEMA,
            "prep_rate": interval,
            "threads": self.threads,
            "files": self.files,
            "crop": list(self.crop),
            "skipped": self.skipped,
            "form": self.form,
            "expansion": self.expansion,
        }


def measure_prep_rate(
    paths: Sequence[str],
    crop: tuple[int, int],
    *,
    threads: int,
    seconds: float = 3.0,
    dtype: Literal["float32", "uint8"] = "float32",
    form: Literal["original", "indexed", "packed"] = "original",
) -> PrepRate:
    """Prepares the pictures over and over: random resized crop, flip, normalise (float32 only).

    Args:
        paths: pictures; those beyond 512 MiB are not used.
        crop: (height, width) in pixels.
        threads: prep threads.
        seconds: of measuring, in 12 blocks, after one pass that fills the memory.
        form: in which the items are held (MinIOCache); files that have no such form as they are.

    Raises:
        CoordlError: not one of the files can be measured.
    """
    plan = Plan(
        geometry="random_resized_crop",
        out_height=crop[0],
        out_width=crop[1],
        flip_probability=0.5,
        pixel=dtype,
        mean=IMAGENET_MEAN if dtype == "float32" else None,
        std=IMAGENET_STD if dtype == "float32" else None,
    )
    items, unread = _readable(paths)
    name = f"rates-{os.getpid()}-{time.monotonic_ns()}"
    room = 2 * items.total_bytes  # the largest form takes less
    with MinIOCache(room, name=name, expected_items=len(items), form=form) as cache:
        bench = _Bench(items, cache, plan, threads)
        try:
            usable = bench.fill()
            if usable.size == 0:
                raise CoordlError(
                    f"None of the {len(items)} readable files is a {format_names()} "
                    "file the native pass takes."
                )
            expansion = cache.stats()["used_bytes"] / items.total_bytes
            blocks = [bench.block(usable, seconds / BLOCKS) for _ in range(BLOCKS)]
        finally:
            bench.workers.close()
    low, high = _interval(blocks)
    return PrepRate(
        value=float(np.mean(blocks)),
        low=low,
        high=high,
        threads=threads,
        files=int(usable.size),
        skipped=unread + len(items) - int(usable.size),
        crop=crop,
        form=form,
        expansion=expansion,
    )


def _readable(paths: Sequence[str]) -> tuple[Items, int]:
    """Items of the readable files, up to the limit; how many were not readable."""
    if not paths:
        raise CoordlError("The list names no files.")
    sizes, _, errnos = _native.stat_files(paths, 16)
    good = np.flatnonzero((errnos == 0) & (sizes > 0))
    if good.size == 0:
        raise CoordlError(f"None of the {len(paths)} files can be read, {paths[0]} among them.")
    within = np.cumsum(sizes[good]) <= FILES_LIMIT_BYTES
    within[0] = True
    return identify([paths[row] for row in good[within]]), len(paths) - int(good.size)


class _Bench:
    """The loader's threads over items in memory."""

    def __init__(self, items: Items, cache: MinIOCache, plan: Plan, threads: int) -> None:
        native_pass = plan.native_pass()
        self.count = len(items)
        self.sample_bytes = native_pass.sample_bytes
        self.ahead = max(2, threads)
        self.pool = _native.BufferPool(self.ahead + 2)
        table = _native.ItemTable(list(items.paths), items.sizes, items.mtimes_ns, items.keys)
        self.workers = _native.Workers(
            table, native_pass, cache.tiers, threads, 16, 64 << 20, cache.form
        )
        self.epoch = 0

    def start(self, rows: np.ndarray) -> Any:
        self.epoch += 1  # crops vary from minibatch to minibatch
        buffer = self.pool.take(len(rows) * self.sample_bytes)
        ticket = self.workers.ticket(rows, rows, 0, self.epoch)
        self.workers.submit(ticket, buffer)
        return ticket

    def fill(self) -> np.ndarray:
        """Reads every item into the cache; rows that native prep takes."""
        usable: list[int] = []
        for first in range(0, self.count, MINIBATCH):
            rows = np.arange(first, min(first + MINIBATCH, self.count))
            ticket = self.start(rows)
            self.workers.wait(ticket)
            left = {row for row, _, _ in ticket.exceptions()}
            usable += [first + row for row in range(len(rows)) if row not in left]
        return np.asarray(usable, np.int64)

    def block(self, usable: np.ndarray, seconds: float) -> float:
        """Samples per second over at least `seconds`, the pipe filled before and kept full."""
        order = np.resize(np.random.default_rng(self.epoch).permutation(usable), 4096)
        position = 0

        def following() -> np.ndarray:
            nonlocal position
            position += MINIBATCH
            return order.take(np.arange(position - MINIBATCH, position), mode="wrap")

        flying = deque(self.start(following()) for _ in range(self.ahead))
        self.workers.wait(flying.popleft())
        done, begin, elapsed = 0, time.perf_counter(), 0.0
        while elapsed < seconds or done == 0:
            flying.append(self.start(following()))
            self.workers.wait(flying.popleft())
            done += MINIBATCH
            elapsed = time.perf_counter() - begin
        for ticket in flying:
            self.workers.wait(ticket)
        return done / elapsed


def _interval(blocks: list[float]) -> tuple[float, float]:
    drawn = np.random.default_rng(0).choice(blocks, (2000, len(blocks))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
