"""The training under test of prediction.py: pictures of a folder into a small net on the CPU.

    python benchmarks/loaders/trainer.py FOLDER [--model small] [--workers 2] [--loader coordl ...]

With --timed N it ends after N epochs and prints their seconds as JSON; else it trains on. It trains
on one thread: more of OpenMP's would spin on the cores that prepare, which no accelerator does.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

MODELS = {"tiny": 4, "small": 16, "medium": 48}  # channels of its first layer


def build(name: str) -> nn.Module:
    """A convolutional net; what a step costs grows with its channels."""
    wide = MODELS[name]
    return nn.Sequential(
        nn.Conv2d(3, wide, 7, stride=4),
        nn.ReLU(),
        nn.Conv2d(wide, 2 * wide, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * wide, 10),
    )


def make_loader(options: argparse.Namespace) -> Any:
    from coordl import transforms as T

    recipe = T.Compose([T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.ToTensor()])
    common: dict[str, Any] = {
        "batch_size": options.batch,
        "shuffle": True,
        "num_workers": options.workers,
        "drop_last": True,
    }
    import coordl

    data = coordl.ImageFolder(options.folder, recipe)
    if options.loader == "torch":
        return torch.utils.data.DataLoader(data, **common)
    return coordl.DataLoader(data, **common, seed=0, cache=options.cache, cache_form=options.form)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--loader", choices=["torch", "coordl"], default="torch")
    parser.add_argument("--cache", default="100%")
    parser.add_argument("--form", default="original")
    parser.add_argument("--timed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loader = make_loader(options)
    model = build(options.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    seconds: list[float] = []
    while not options.timed or len(seconds) < options.timed:
        begin = time.perf_counter()
        samples = 0
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels % 10)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            samples += len(labels)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": seconds, "samples": samples}))


if __name__ == "__main__":
    main()
