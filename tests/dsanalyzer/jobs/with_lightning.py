"""A script on Lightning, whose Trainer owns the loop."""

import glob
import sys

import usable  # isort: skip  # noqa: F401 - before what imports torchvision

import lightning
import torch
from shapes import Pictures
from torch import nn
from torch.utils.data import DataLoader


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.Flatten(), nn.Linear(2048, 2))

    def training_step(self, batch, _):
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def main():
    paths = sorted(glob.glob(f"{sys.argv[1]}/*/*.jpg"))
    loader = DataLoader(Pictures(paths), batch_size=16, shuffle=True, num_workers=2)
    trainer = lightning.Trainer(
        max_epochs=100, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(Net(), loader)


if __name__ == "__main__":
    main()
