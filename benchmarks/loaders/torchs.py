"""torch's DataLoader over an image folder.

    python -m benchmarks.loaders.torchs FOLDER BATCH DTYPE RECIPE WORKERS

Settings: persistent worker processes, torch's prefetch_factor, one thread each. RECIPE "pillow" is
ImageFolder's classic: Pillow, torchvision's first transforms (here coordl.transforms, which are the
same calls of Pillow). "v2" decodes to tensors by torchvision.io and uses the transforms of v2.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.utils.data

from benchmarks.peers.stubs import import_torchvision
from benchmarks.peers.variant import MEAN, STD
from benchmarks.storage.contender import serve
from benchmarks.storage.recipe import SEED, SIZE


def pillow(folder: str, floats: bool) -> Any:
    """The classic."""
    import_torchvision()
    from torchvision import datasets, transforms

    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]
    steps += (
        [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        if floats
        else [transforms.PILToTensor()]
    )
    return datasets.ImageFolder(folder, transforms.Compose(steps))


def v2(folder: str, floats: bool) -> Any:
    """On tensors."""
    import_torchvision()
    from torchvision import datasets, io
    from torchvision.transforms import v2 as transforms

    def load(path: str) -> torch.Tensor:
        return io.decode_image(path, mode=io.ImageReadMode.RGB)

    steps: list[Any] = [
        transforms.RandomResizedCrop(SIZE, antialias=True),
        transforms.RandomHorizontalFlip(),
    ]
    if floats:
        steps += [transforms.ToDtype(torch.float32, scale=True), transforms.Normalize(MEAN, STD)]
    return datasets.ImageFolder(folder, transforms.Compose(steps), loader=load)


RECIPES = {"pillow": pillow, "v2": v2}


def one_thread(_: int) -> None:
    """As torch has it in workers already; said for whoever reads."""
    torch.set_num_threads(1)


def main(folder: str, batch: int, dtype: str, recipe: str, workers: int) -> None:
    """Epochs until nobody asks for one."""
    loader = torch.utils.data.DataLoader(
        RECIPES[recipe](folder, dtype == "float32"),
        batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        worker_init_fn=one_thread,
    )
    torch.manual_seed(SEED)

    def epoch() -> dict[str, Any]:
        return {"samples": sum(len(images) for images, _ in loader)}

    serve(epoch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
