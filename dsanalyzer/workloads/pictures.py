"""Classes of pictures: the usual recipe (random resized crop, flip, normalise; Pillow), and
torchvision's nets where it is installed."""

from __future__ import annotations

import math
import random
from typing import Any

from dsanalyzer.workloads.workload import Samples, Workload, installed, small_net

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SIDE = 224
CLASSES = 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# As torchvision calls them.
NETS = {
    "alexnet": "alexnet",
    "mobilenet_v2": "mobilenet_v2",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "shufflenet_v2": "shufflenet_v2_x0_5",
    "squeezenet": "squeezenet1_0",
    "vgg11": "vgg11",
}


def why_not(model: str, emulated: bool) -> str:
    """Where torchvision is missing only an emulated accelerator can do."""
    if emulated or installed("torchvision.models") is not None:
        return ""
    return (
        f"{model} is torchvision's, which is not installed (or does not fit this torch). Install "
        "it, or emulate the accelerator with --gpu-rate or --gpu-trace"
    )


def build(model: str) -> Any:
    """The net, or a small one in its place where torchvision is not installed."""
    models = installed("torchvision.models")
    return small_net(CLASSES) if models is None else getattr(models, NETS[model])(weights=None)


class Pictures:
    """A map-style data set of (3, side, side) float32 tensors and class numbers.

    Args:
        least: share of a picture's area that a crop has at least.
    """

    def __init__(self, samples: Samples, side: int = SIDE, least: float = 0.08) -> None:
        self.samples, self.side, self.least = samples, side, least

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        path, label = self.samples[index]
        with Image.open(path) as file:
            image = file.convert("RGB")
        box = _random_box(*image.size, self.least)
        image = image.resize((self.side, self.side), Image.Resampling.BILINEAR, box=box)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return normalised(self.coloured(image)), label

    def coloured(self, image: Any) -> Any:
        """What is done to the colours of a crop; here nothing."""
        return image


def normalised(image: Any) -> Any:
    """A picture as a tensor (3, height, width), float32."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div_(255)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return pixels.sub_(mean).div_(std)


def _random_box(width: int, height: int, least: float) -> tuple[float, float, float, float]:
    """At least so much of the picture, of an aspect between 3:4 and 4:3, as ImageNet's recipe."""
    area = width * height * random.uniform(least, 1.0)
    aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    wide = min(width, math.sqrt(area * aspect))
    high = min(height, math.sqrt(area / aspect))
    left, top = random.uniform(0, width - wide), random.uniform(0, height - high)
    return left, top, left + wide, top + high


def loss(net: Any, batch: Any) -> Any:
    """Cross entropy of (images, labels)."""
    import torch

    images, labels = batch
    return torch.nn.functional.cross_entropy(net(images), labels % CLASSES)


PICTURES = Workload("pictures", SUFFIXES, tuple(NETS), Pictures, build, loss, why_not)
