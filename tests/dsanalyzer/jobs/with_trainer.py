"""A script on Hugging Face's Trainer, which owns the loop."""

import glob
import sys

import usable  # noqa: F401 - before what imports torchvision
from shapes import Pictures
from torch import nn
from transformers import Trainer, TrainingArguments


class Examples(Pictures):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return {"pixel_values": image, "labels": label}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.Flatten(), nn.Linear(2048, 2))

    def forward(self, pixel_values, labels):
        logits = self.layers(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def main():
    arguments = TrainingArguments(
        "out",
        per_device_train_batch_size=16,
        num_train_epochs=200,
        dataloader_num_workers=2,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
    )
    examples = Examples(sorted(glob.glob(f"{sys.argv[1]}/*/*.jpg")))
    Trainer(Net(), arguments, train_dataset=examples).train()


if __name__ == "__main__":
    main()
