"""Trains a ResNet on pictures in class folders, DATA/train/<class> and DATA/val/<class>.

    python examples/train_images.py DATA --epochs 10 --batch-size 64 --workers 2

Without DATA/train the class folders lie in DATA itself, and there is no validation.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import torch
from torch import nn

try:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
except (ImportError, RuntimeError):  # none here, or one that was built for another torch
    from coordl import ImageFolder, transforms

from torch.utils.data import DataLoader

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(arch: str, classes: int) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels_in = 64
    for stage, blocks in enumerate(BLOCKS[arch]):
        channels = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(channels_in, channels, stride))
            channels_in = channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels_in, classes)]
    return nn.Sequential(*layers)


class Meter:
    """Mean of what was added, weighted."""

    def __init__(self) -> None:
        self.total, self.weight = 0.0, 0

    def add(self, value: float, weight: int = 1) -> None:
        self.total += value * weight
        self.weight += weight

    @property
    def mean(self) -> float:
        return self.total / max(1, self.weight)


def make_loaders(args: argparse.Namespace) -> tuple[DataLoader, DataLoader | None]:
    normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    train_transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(args.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            normalize,
        ]
    )
    val_transform = transforms.Compose(
        [
            transforms.Resize(args.image_size * 256 // 224),
            transforms.CenterCrop(args.image_size),
            transforms.ToTensor(),
            normalize,
        ]
    )
    split = (args.data / "train").is_dir()
    train_loader = DataLoader(
        ImageFolder(args.data / "train" if split else args.data, train_transform),
        batch_size=args.batch_size,
        shuffle=True,
        num_workers=args.workers,
        pin_memory=torch.cuda.is_available(),
    )
    if not (split and (args.data / "val").is_dir()):
        return train_loader, None
    val_loader = DataLoader(
        ImageFolder(args.data / "val", val_transform),
        batch_size=args.batch_size,
        num_workers=args.workers,
        pin_memory=torch.cuda.is_available(),
    )
    return train_loader, val_loader


def train(loader, model, criterion, optimizer, device, epoch: int, print_freq: int) -> None:
    model.train()
    losses, data_s, step_s = Meter(), Meter(), Meter()
    end = time.perf_counter()
    for step, (images, target) in enumerate(loader):
        data_s.add(time.perf_counter() - end)
        images = images.to(device, non_blocking=True)
        target = target.to(device, non_blocking=True)
        loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.add(loss.item(), len(target))
        step_s.add(time.perf_counter() - end)
        end = time.perf_counter()
        if step % print_freq == 0:
            print(
                f"epoch {epoch} [{step}/{len(loader)}]  loss {losses.mean:.3f}  "
                f"step {step_s.mean:.3f} s  data {data_s.mean:.3f} s",
                flush=True,
            )


@torch.no_grad()
def validate(loader, model, criterion, device) -> float:
    """Share of pictures whose class was found."""
    model.eval()
    losses, found = Meter(), Meter()
    for images, target in loader:
        images, target = images.to(device), target.to(device)
        output = model(images)
        losses.add(criterion(output, target).item(), len(target))
        found.add((output.argmax(1) == target).float().mean().item(), len(target))
    print(f"validation  loss {losses.mean:.3f}  accuracy {found.mean:.1%}", flush=True)
    return found.mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the pictures")
    parser.add_argument("--arch", choices=sorted(BLOCKS), default="resnet18")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--image-size", type=int, default=224, help="edge of what the net sees")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--print-freq", type=int, default=10)
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    if args.seed is not None:
        torch.manual_seed(args.seed)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_loader, val_loader = make_loaders(args)
    model = resnet(args.arch, classes=len(train_loader.dataset.classes)).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)

    first_epoch, best = 0, 0.0
    if args.resume:
        state = torch.load(args.resume, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first_epoch, best = state["epoch"], state["best"]
        print(f"resumed from {args.resume} at epoch {first_epoch}", flush=True)

    for epoch in range(first_epoch, args.epochs):
        train(train_loader, model, criterion, optimizer, device, epoch, args.print_freq)
        accuracy = validate(val_loader, model, criterion, device) if val_loader else 0.0
        schedule.step()
        is_best, best = accuracy > best, max(accuracy, best)
        state = {
            "epoch": epoch + 1,
            "best": best,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        }
        torch.save(state, args.checkpoint)
        if is_best:
            shutil.copyfile(args.checkpoint, args.checkpoint.with_suffix(".best.pt"))


if __name__ == "__main__":
    main()
