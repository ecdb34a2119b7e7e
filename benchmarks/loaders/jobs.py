"""One of several jobs on a machine: python -m benchmarks.loaders.jobs ...

    FOLDER BATCH DTYPE KIND WORKERS GROUP RATE

KIND "stock": torch's DataLoader, persistent workers, the Pillow recipe of ImageFolder. "alone":
coordl's, native threads, no cache and no group. "group": the same in GROUP. RATE: samples/s of an
emulated accelerator, which takes minibatches at deadlines of its own; 0: as fast as they come.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.utils.data

import coordl
from benchmarks.loaders.accelerator import paced
from benchmarks.loaders.torchs import one_thread, pillow
from benchmarks.storage.contender import serve
from benchmarks.storage.recipe import SEED


def loader_of(kind: str, data: Any, batch: int, workers: int, group: str) -> Any:
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
        seed=SEED,
        group=group if kind == "group" else None,
    )


def main(
    folder: str, batch: int, dtype: str, kind: str, workers: int, group: str, rate: float
) -> None:
    """Epochs until nobody asks for one."""
    loader = loader_of(kind, pillow(folder, dtype == "float32"), batch, workers, group)
    torch.manual_seed(SEED)

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
    _, where, size, pixels, which, count, named, speed = sys.argv
    main(where, int(size), pixels, which, int(count), named, float(speed))
