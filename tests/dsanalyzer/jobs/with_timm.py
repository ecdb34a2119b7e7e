"""A script on timm's data sets and loaders, as its train.py makes them without a GPU."""

import sys

import torch
import usable  # noqa: F401 - before what imports torchvision
from timm.data import create_dataset, create_loader
from torch import nn


def main():
    loader = create_loader(
        create_dataset("", sys.argv[1]),
        input_size=(3, 64, 64),
        batch_size=16,
        is_training=True,
        use_prefetcher=False,
        num_workers=2,
        persistent_workers=False,
    )
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.Flatten(), nn.Linear(2048, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(3):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
