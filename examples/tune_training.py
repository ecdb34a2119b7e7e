"""The training that tune_optuna.py and tune_ray.py search a learning rate for.

It knows nothing of groups, Optuna or Ray: whoever starts it names the group.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import coordl
from coordl import DataLoader, transforms


@functools.cache
def make_loader(data: Path, batch_size: int, image_size: int) -> DataLoader:
    """One for all trials of a process, which counts its epochs on: a trial that follows another is
    where the other jobs are, and not at an epoch that they have left behind."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    return DataLoader(
        coordl.ImageFolder(data, transform),
        batch_size,
        shuffle=True,
        num_workers=2,
        cache="65%",
    )


def train(
    learning_rate: float,
    data: Path,
    epochs: int,
    batch_size: int,
    image_size: int,
    report: Callable[[int, dict[str, Any]], None],
) -> float:
    """Trains a small net; `report` gets each epoch's figures, and may raise to end the trial."""
    loader = make_loader(data, batch_size, image_size)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 7, stride=4), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(loader.dataset.classes)),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9)
    loss_of = nn.CrossEntropyLoss()
    mean = float("nan")
    for epoch in range(epochs):
        total, seen = 0.0, 0
        for images, target in loader:
            loss = loss_of(model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, seen = total + loss.item() * len(target), seen + len(target)
        mean = total / seen
        report(epoch, {"loss": mean, "samples": seen, **prepared(loader)})
    return mean


def prepared(loader: DataLoader) -> dict[str, int]:
    """Of the epoch that ended: samples prepared in this process, and those got from other jobs."""
    shared = loader.stats()["epochs"][-1]["shared"] or {}
    made = shared.get("prepared", 0) + shared.get("alone", 0)
    return {"prepared": made, "from_others": shared.get("staged", 0)}


def summary(reports: list[dict[str, Any]]) -> str:
    """What all trials trained on, and what that took."""
    samples, made = (sum(each[name] for each in reports) for name in ("samples", "prepared"))
    return f"{samples:,} samples trained on, {made:,} prepared: {samples / max(1, made):.2f} each"
