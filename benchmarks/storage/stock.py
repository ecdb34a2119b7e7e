"""torch's DataLoader over an image folder: python -m benchmarks.storage.stock FOLDER BATCH

Settings: two worker processes, persistent, torch's prefetch_factor; Pillow recipe. Every open is
preceded by a look at whether the file is in memory, some microseconds.
"""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import torch
from PIL import Image

from benchmarks.storage.contender import serve
from benchmarks.storage.recipe import SEED, SIZE, WORKERS
from coordl import ImageFolder, transforms
from dsanalyzer.measure.residency import resident_pages


class Counting:
    """Loads a picture and counts those that were not whole in memory."""

    def __init__(self) -> None:
        self.missed = multiprocessing.Value("q", 0)

    def __call__(self, path: str) -> Image.Image:
        resident, pages, _ = resident_pages(path)
        if resident < pages:
            with self.missed.get_lock():
                self.missed.value += 1
        with open(path, "rb") as file:
            return Image.open(file).convert("RGB")


def main(folder: str, batch: int) -> None:
    """Epochs until nobody asks for one."""
    recipe = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )
    counting = Counting()
    loader = torch.utils.data.DataLoader(
        ImageFolder(folder, recipe, loader=counting),
        batch,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    torch.manual_seed(SEED)

    def epoch() -> dict[str, Any]:
        before = counting.missed.value
        samples = sum(len(images) for images, _ in loader)
        return {"samples": samples, "missed": counting.missed.value - before}

    serve(epoch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
