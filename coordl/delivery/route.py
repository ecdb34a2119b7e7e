"""Who makes a loader's samples, native threads or Python, and why."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.data

from coordl.fetch.cache import MinIOCache
from coordl.fetch.folder import Folder, find_folder
from coordl.fetch.objects import THREADS
from coordl.fetch.served import opens_folder
from coordl.fetch.source import describe_cache
from coordl.prep.plan import Plan, Prefix, compile_plan, format_names, whole_prefix
from coordl.staging.job_group import VARIABLE

# Files the native pass leaves to Pillow are prepared one by one in the consumer's process: with
# more than a few of them, torch's worker processes are the faster way.
_NATIVE_SHARE_WANTED = 0.9
_PILLOWS_LIMIT = (1 << 30) // 4 // 3
OBJECTS = "objects come through fsspec, which is Python"


@dataclass(frozen=True)
class Route:
    """How a loader's samples get made.

    Attributes:
        folder: the image folder, where the data set is one.
        plan: the native pass, where there is one.
        reasons: why samples are made in Python; empty when natively.
        cached: reads go through the cache.
        prefix: the native pass Python's samples begin with, where there is one.
    """

    folder: Folder | None
    plan: Plan | None
    reasons: tuple[str, ...]
    cached: bool
    prefix: Prefix | None = None

    @property
    def native(self) -> bool:
        return not self.reasons


def _lowered_limit() -> int | None:
    """Pillow's limit against decompression bombs where somebody set a lower one: at its own and
    above, the native pass leaves pictures to Pillow by itself."""
    limit = getattr(sys.modules.get("PIL.Image"), "MAX_IMAGE_PIXELS", None)
    return limit if isinstance(limit, int) and limit < _PILLOWS_LIMIT else None


def route_of(loader: Any) -> Route:
    """Decides anew each time: attributes of loader and data set may change between epochs."""
    reasons: list[str] = []
    found = find_folder(loader.dataset)
    folder = None if isinstance(found, str) else found
    plan: Plan | None = None
    prefix: Prefix | None = None
    if folder is None:
        reasons.append(str(found))
    elif folder.python:
        reasons.append(folder.python)
    else:
        compiled = compile_plan(folder.dataset.transform)
        if isinstance(compiled, Plan):
            last = loader.memory_format is torch.channels_last
            plan = compiled.with_layout("hwc" if last else "chw")
            prefix = whole_prefix(compiled)
        else:
            reasons.append(compiled.reason)
            prefix = compiled.prefix
        if loader.prep == "auto" and (share := folder.native_share()) < _NATIVE_SHARE_WANTED:
            prefix = None
            reasons.append(f"{1 - share:.0%} of the files are no {format_names()} by name")
        if folder.objects is not None:
            reasons.append(OBJECTS)
        if folder.reads:
            reasons.append(folder.reads)
        if (limit := _lowered_limit()) is not None:
            prefix = None
            reasons.append(f"PIL.Image.MAX_IMAGE_PIXELS is {limit:,}: Pillow decides what opens")
        if folder.reads_targets:
            reasons.append("its targets are read from the tar shards, which would hold up prep")
    if loader.prep == "python":
        prefix = None
        reasons.append("prep='python' was asked for")
    if not loader._auto_collation:
        prefix = None
        reasons.append("batch_size=None: samples are not collated")
    elif loader.collate_fn is not torch.utils.data.default_collate:
        reasons.append("collate_fn is not torch's default")
    if loader.worker_init_fn is not None:
        prefix = None  # it may do anything to the data set it finds in its worker
        reasons.append("worker_init_fn is given: it wants worker processes")
    cached = loader.cache is not None and folder is not None
    return Route(folder, plan, tuple(reasons), cached, prefix)


def describe(loader: Any, route: Route, cache: MinIOCache | None) -> str:
    """The text of plan()."""
    sampled = not isinstance(loader.dataset, torch.utils.data.IterableDataset)
    lines = ["order: torch's samplers" if sampled else "order: the data set's own"]
    files = "files" if route.folder is None else route.folder.kind
    if route.folder is not None and route.folder.objects is not None:
        files = f"objects of {route.folder.objects.place.url}, {THREADS} at a time in each process"
    asked = "your own" if isinstance(loader.cache, MinIOCache) else f"{loader.cache}"
    if route.cached:
        form = loader.cache.form if isinstance(loader.cache, MinIOCache) else loader.cache_form
        held = "items held in whichever form is fastest" if form == "auto" else f"items held {form}"
        if route.folder is not None and route.folder.form:
            held = f"items held as {route.folder.form}"
        lines.append(f"fetch: never-evict cache, {asked}: {held}, then {files}")
        lines += describe_cache(cache)
        if loader.peers is not None:
            who = ", ".join(loader.peers)
            if isinstance(loader.peers, str):
                who = {"auto": "of this job", "ray": "of this Ray cluster"}[loader.peers]
            how = "ahead of prep, in batches" if route.native else "by Python, item by item"
            lines.append(f"  peers: servers {who}, asked before storage, {how}")
    elif loader.cache_opens:
        folder = opens_folder(loader.dataset, loader.cache_opens)
        lines.append(
            f"fetch: never-evict cache, {asked}: what Python opens to read below {folder}; "
            "other reads bypass it (stats() counts them)"
        )
        lines += describe_cache(cache)
    elif loader.cache is not None:
        lines.append("fetch: as the data set does; the cache cannot serve it")
    else:
        lines.append(f"fetch: {files}, no cache")
    chosen = f' (num_workers="auto": {loader._auto})' if loader._auto else ""
    if route.native:
        assert route.plan is not None
        lines += [*route.plan.describe(), f"  threads: {max(1, loader.num_workers)}{chosen}"]
    else:
        where = f"{loader.num_workers} worker process(es)" if loader.num_workers else "this process"
        where += chosen
        lines.append(f"prep: Python, {where}, because")
        lines += [f"  - {reason}" for reason in route.reasons]
        lines += route.prefix.describe() if route.prefix else []
        if loader.num_workers:
            lines.append("staging: plain CPU tensors in shared slots, others as torch sends")
    keyed = "torch's base seed" if loader.seed is None else f"seed {loader.seed}, epoch, index"
    if isinstance(loader.dataset, torch.utils.data.IterableDataset) and loader.seed is not None:
        lines.append("draws: as torch seeds its workers; seed= cannot key samples without an index")
    elif route.native or loader.seed is not None:
        lines.append(f"draws: keyed by {keyed}")
    else:
        lines.append("draws: the transforms' own generators, as torch seeds them")
    if loader._local.joined.group is not None:
        lines.append(
            f"group: {loader._local.joined.group.name}, samples made once for all members near"
        )
    elif named := loader.group or os.environ.get(VARIABLE):
        lines.append(f"group: {named}, joined by the first pass if its samples can be shared")
    return "\n".join(lines)
