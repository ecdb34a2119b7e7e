"""A training job of our own, for planning without a script: `dsanalyzer profile --data DIR ...`.

Pictures of a folder through the usual recipe (random resized crop, flip, normalise; Pillow) in
torch's DataLoader into a model. The model is torchvision's where it is installed; with an emulated
accelerator any will do, since only its rate counts.

    python -m dsanalyzer.builtin --data DIR --model resnet18 --batch-size 64 --workers 4
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from typing import Any

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The image nets of Mohan et al. (VLDB 2021), as torchvision calls them.
MODELS = {
    "alexnet": "alexnet",
    "mobilenet_v2": "mobilenet_v2",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "shufflenet_v2": "shufflenet_v2_x0_5",
    "squeezenet": "squeezenet1_0",
    "vgg11": "vgg11",
}


class NoJob(ValueError):
    """The job cannot be made; the message says what to give instead."""


def pictures(folder: Path) -> list[tuple[str, int]]:
    """(path, class) of every picture below `folder`, or below its train/; sorted.

    Raises:
        NoJob: no such folder, or no pictures in it.
    """
    if not folder.is_dir():
        raise NoJob(f"{folder} is no folder; give one with pictures, in folders by class or flat")
    root = folder / "train" if (folder / "train").is_dir() else folder
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise NoJob(f"no pictures ({', '.join(SUFFIXES)}) below {root}")
    classes = {name: n for n, name in enumerate(sorted({path.parent for path in paths}))}
    return [(str(path.absolute()), classes[path.parent]) for path in paths]


def check_model(name: str, emulated: bool) -> None:
    """Raises NoJob where there is no such model here."""
    if name not in MODELS:
        raise NoJob(f"unknown model {name!r}; there are {', '.join(MODELS)}")
    if not emulated and _torchvision_models() is None:
        raise NoJob(
            f"{name} is torchvision's, which is not installed (or does not fit this torch). "
            "Install it, or emulate the accelerator with --gpu-rate or --gpu-trace"
        )


def _torchvision_models() -> Any:
    """torchvision.models; None where it is missing or was built for another torch."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError, OSError):
        return None
    return models


def build_model(name: str) -> Any:
    """The model, or a small one in its place where torchvision is not installed."""
    from torch import nn

    models = _torchvision_models()
    if models is None:
        return nn.Sequential(
            nn.Conv2d(3, 8, 7, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000)
        )
    return getattr(models, MODELS[name])(weights=None)


class Pictures:
    """A map-style data set of (3, 224, 224) float32 tensors and class numbers."""

    def __init__(self, samples: list[tuple[str, int]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import numpy as np
        import torch
        from PIL import Image

        path, label = self.samples[index]
        with Image.open(path) as file:
            image = file.convert("RGB")
        box = _random_box(*image.size)
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div_(255)
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        return pixels.sub_(mean).div_(std), label


def _random_box(width: int, height: int) -> tuple[float, float, float, float]:
    """8 to 100 % of the picture, of an aspect between 3:4 and 4:3, as ImageNet's recipe has it."""
    area = width * height * random.uniform(0.08, 1.0)
    aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    wide = min(width, math.sqrt(area * aspect))
    high = min(height, math.sqrt(area / aspect))
    left, top = random.uniform(0, width - wide), random.uniform(0, height - high)
    return left, top, left + wide, top + high


def train(folder: Path, model_name: str, batch_size: int, workers: int) -> None:
    """Trains until it is stopped."""
    import torch
    from torch.utils.data import DataLoader

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(model_name).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    data: Any = Pictures(pictures(folder))
    loader = DataLoader(
        data,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=len(data) >= batch_size,
        pin_memory=device == "cuda",
    )
    while True:
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device) % 1000
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="resnet18", choices=MODELS)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    train(options.data, options.model, options.batch_size, options.workers)


if __name__ == "__main__":
    main()
