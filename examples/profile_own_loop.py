"""Profiles a loop where it is, as in a notebook: no script of its own, and no command.

    python examples/profile_own_loop.py DATA --output result.json

DATA has class folders of pictures. The loop runs in forks of this process; the model here stays
untrained.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader

import dsanalyzer
from coordl import ImageFolder, transforms

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--budget", default="1m")
parser.add_argument("--output")
args = parser.parse_args()

recipe = transforms.Compose(
    [transforms.RandomResizedCrop(64), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
)
loader = DataLoader(ImageFolder(args.data, recipe), batch_size=16, shuffle=True, num_workers=2)
model = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
model(torch.zeros(1, 3, 64, 64))  # the lazy layer learns its size
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)


def train_step(minibatch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """One step, as the loop has it."""
    images, labels = minibatch
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


result = dsanalyzer.profile(
    loader, train_step, cached="50%", budget=args.budget, output=args.output
)
stall = result["steady"]["fetch_stall_s"]
print(f"fetch stall: {stall['verdict']}, {stall['share']:.0%} of an epoch")
