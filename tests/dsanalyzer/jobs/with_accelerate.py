"""A script on Hugging Face Accelerate, which builds the loader anew."""

import glob
import sys

import torch
from accelerate import Accelerator
from shapes import Pictures
from torch import nn
from torch.utils.data import DataLoader


def main():
    accelerator = Accelerator(cpu=True)
    paths = sorted(glob.glob(f"{sys.argv[1]}/*/*.jpg"))
    loader = DataLoader(Pictures(paths), batch_size=16, shuffle=True, num_workers=2)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.Flatten(), nn.Linear(2048, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for _ in range(3):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()


if __name__ == "__main__":
    main()
