"""The same script with coordl's DataLoader: python -m benchmarks.loaders.ours ...

Settings: two prep threads. FORM "none": no cache, files from the page cache; else the form of the
items in a cache that has room for all of them. `prep_share`: how much of the threads' time
was prep, and `fetch_s` their reads, in seconds.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

import coordl
from benchmarks.loaders.torchs import pillow
from benchmarks.storage.contender import serve
from benchmarks.storage.recipe import SEED, WORKERS

CACHE = "4GiB"  # room for everything, packed


def main(folder: str, batch: int, dtype: str, form: str) -> None:
    """Epochs until nobody asks for one."""
    # A name of its own: contenders of other forms read the same folder.
    cache = (
        None
        if form == "none"
        else coordl.MinIOCache(
            CACHE, name=f"end-to-end.{form}.{os.getpid()}", form=form, expected_items=1 << 16
        )
    )
    loader = coordl.DataLoader(
        pillow(folder, dtype == "float32"),
        batch,
        shuffle=True,
        num_workers=WORKERS,
        prep="native",
        cache=cache,
    )
    torch.manual_seed(SEED)

    def epoch() -> dict[str, Any]:
        samples = sum(len(images) for images, _ in loader)
        last = loader.stats()["epochs"][-1]
        return {
            "samples": samples,
            **{name: last[name] for name in ("prep_s", "fetch_s", "admit_s")},
        }

    serve(epoch)


if __name__ == "__main__":
    main(*sys.argv[1:2], int(sys.argv[2]), *sys.argv[3:])
