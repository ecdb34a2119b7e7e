"""One of several jobs on a machine: python -m benchmarks.loaders.jobs ...

    FOLDER BATCH DTYPE KIND WORKERS GROUP RATE [STAGING [CACHE [SEED]]]

KIND "stock": torch's DataLoader, persistent workers, the Pillow recipe of ImageFolder. "alone":
coordl's, native threads, no cache and no group. "group": the same in GROUP. RATE: samples/s of an
emulated accelerator, which takes minibatches at deadlines of its own; 0: as fast as they come.
DTYPE "bytes": files are read and not decoded (stock). STAGING: the group's memory. CACHE: coordl's,
of items as they are. SEED: of the job's order.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.utils.data

import coordl
from benchmarks.loaders.accelerator import paced
from benchmarks.loaders.torchs import one_thread, pillow
from benchmarks.storage.contender import paths_of, serve
from benchmarks.storage.recipe import SEED
from coordl.fetch.cache import cache_name
from coordl.fetch.item import identify


class Bytes(torch.utils.data.Dataset[Any]):
    """Files that are read, and no more: their sizes."""

    def __init__(self, folder: str) -> None:
        self.paths = list(paths_of(Path(folder)))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return len(Path(self.paths[index]).read_bytes()), 0


def cache_of(folder: str, budget: str) -> coordl.MinIOCache:
    """The one that all jobs over the folder share."""
    items = identify(list(paths_of(Path(folder))))
    return coordl.MinIOCache(
        budget,
        name=cache_name(folder),
        dataset_bytes=items.total_bytes,
        expected_items=len(items),
        form="original",
    )


def loader_of(
    kind: str, data: Any, batch: int, workers: int, group: str, staging: str, cache: Any, seed: int
) -> Any:
    """The loader to measure."""
    if kind == "stock":
        return torch.utils.data.DataLoader(
            data,
            batch,
            shuffle=True,
            num_workers=workers,
            persistent_workers=True,
            worker_init_fn=one_thread,
        )
    return coordl.DataLoader(
        data,
        batch,
        shuffle=True,
        num_workers=workers,
        prep="native",
        seed=seed,
        group=group if kind == "group" else None,
        staging=staging or None,
        cache=cache,
    )


def main(
    folder: str,
    batch: int,
    dtype: str,
    kind: str,
    workers: int,
    group: str,
    rate: float,
    staging: str = "",
    budget: str = "",
    chosen: str = "",
) -> None:
    """Epochs until nobody asks for one."""
    seed = int(chosen or SEED)
    cache = cache_of(folder, budget) if budget else None
    data = Bytes(folder) if dtype == "bytes" else pillow(folder, dtype == "float32")
    loader = loader_of(kind, data, batch, workers, group, staging, cache, seed)
    torch.manual_seed(seed)

    def epoch() -> dict[str, Any]:
        samples = sum(len(images) for images in paced(loader, rate))
        if kind == "stock":
            return {"samples": samples, "prepared": samples}
        stats = loader.stats()
        last = stats["epochs"][-1]
        shared = last["shared"]
        made = shared["prepared"] + shared["alone"] if shared else samples
        slots = stats["group"]
        staging = slots["slots"] * slots["slot_bytes"] if slots else 0
        read = last["storage_bytes"]
        return {
            "samples": samples,
            "prepared": made,
            "storage_bytes": read,
            "staging_bytes": staging,
        }

    serve(epoch)


if __name__ == "__main__":
    _, where, size, pixels, which, count, named, speed, *more = sys.argv
    main(where, int(size), pixels, which, int(count), named, float(speed), *more)
