"""An ordinary training script, as the profiler meets it."""

import argparse
import glob
import multiprocessing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, random_split


class Pictures(Dataset):
    def __init__(self, root, listed):
        paths = sorted(glob.glob(f"{root}/*/*.jpg"))
        self.paths = paths
        if listed:  # torchvision's attribute
            self.samples = [(path, 0) for path in paths]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = Image.open(self.paths[index]).convert("RGB").resize((64, 64))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, index % 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--context")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, help="leave each epoch after so many steps")
    parser.add_argument("--unlisted", action="store_true")
    parser.add_argument("--split", action="store_true", help="train on an unseeded part")
    parser.add_argument("--persistent", action="store_true")
    parser.add_argument("--one-cycle", action="store_true")
    parser.add_argument("--checkpoint")
    parser.add_argument(
        "--packed", choices=["torch", "coordl"], help="root is packed; whose loader"
    )
    args = parser.parse_args()
    if args.context:
        multiprocessing.set_start_method(args.context)
    data = Pictures(args.root, not args.unlisted)
    loader = DataLoader
    if args.packed:
        import coordl
        from coordl import transforms

        recipe = transforms.Compose([transforms.Resize((64, 64)), transforms.ToTensor()])
        data = coordl.PackedFolder(args.root, recipe)
        loader = coordl.DataLoader if args.packed == "coordl" else DataLoader
    val = DataLoader(data, batch_size=32)
    if args.split:
        data, _ = random_split(data, [0.8, 0.2])
    train = loader(
        data,
        batch_size=16,
        shuffle=True,
        num_workers=args.workers,
        persistent_workers=args.persistent,
    )
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = None
    if args.one_cycle:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.1, total_steps=args.epochs * len(train)
        )
    for _ in range(args.epochs):
        for step, (images, labels) in enumerate(train):
            if step == args.steps:
                break
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step()
            if args.checkpoint:
                torch.save(model.state_dict(), args.checkpoint)
                Path(args.checkpoint).with_name("log-of-it.txt").write_text(
                    "a file of its own, made anew"
                )
        with torch.no_grad():
            for images, _ in val:
                model(images)
                break


if __name__ == "__main__":
    main()
