"""coordl's DataLoader with a cache: python -m benchmarks.storage.ours FOLDER BATCH CACHE

Settings: two prep threads; items as they are (form="original"), so that bytes held are bytes of
files. `uncached` are the bytes on the device, whole pages, of the items that the cache did not hold
when the epoch began.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.storage.contender import paths_of, serve
from benchmarks.storage.recipe import SEED, SIZE, WORKERS
from coordl import DataLoader, ImageFolder, MinIOCache, transforms
from coordl.fetch.cache import cache_name
from coordl.fetch.item import identify
from dsanalyzer.measure.residency import device_bytes


def main(folder: str, batch: int, budget: str) -> None:
    """Epochs until nobody asks for one."""
    recipe = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )
    items = identify(list(paths_of(Path(folder))))
    cache = MinIOCache(
        budget,
        name=cache_name(folder),
        dataset_bytes=items.total_bytes,
        expected_items=len(items),
        form="original",
    )
    loader = DataLoader(
        ImageFolder(folder, recipe), batch, shuffle=True, num_workers=WORKERS, cache=cache
    )
    torch.manual_seed(SEED)

    def epoch() -> dict[str, Any]:
        uncached = sum(
            device_bytes(int(size))
            for key, size in zip(items.keys, items.sizes, strict=True)
            if cache.get(key) is None
        )
        samples = sum(len(images) for images, _ in loader)
        last = loader.stats()["epochs"][-1]
        return {"samples": samples, "missed": last["misses"], "uncached": uncached}

    serve(epoch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
