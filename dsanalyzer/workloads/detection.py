"""Objects in pictures: SSD (Liu et al., ECCV 2016) with 300 x 300 pixels over a ResNet-18.

What is learnt is of no use: each picture has one object, its middle, of its folder's class. What a
sample and a step cost is that of the real thing: crop, colours, flip; three scales of anchors.
"""

from __future__ import annotations

import random
from typing import Any

from dsanalyzer.workloads import pictures
from dsanalyzer.workloads.workload import Samples, Workload, installed, small_net

SIDE = 300
CLASSES = 91  # of COCO, with the background
ANCHORS = (4, 6, 6)  # a place, at each scale
CHANNELS = (128, 256, 512)


class Scenes(pictures.Pictures):
    """As classes of pictures, but with larger crops whose colours vary."""

    def __init__(self, samples: Samples) -> None:
        super().__init__(samples, SIDE, least=0.3)

    def coloured(self, image: Any) -> Any:
        from PIL import ImageEnhance

        for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = kind(image).enhance(random.uniform(0.5, 1.5))
        return image


def build(model: str) -> Any:
    """The net, or a small one in its place where torchvision is not installed."""
    models = installed("torchvision.models")
    if models is None:
        return small_net(CLASSES + 4)
    return _ssd(models.resnet18(weights=None))


def _ssd(trunk: Any) -> Any:
    import torch
    from torch import nn

    class SSD(nn.Module):
        """(B, 3, 300, 300) to (B, anchors, 91 classes and 4 of the box)."""

        def __init__(self) -> None:
            super().__init__()
            stem = nn.Sequential(trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool, trunk.layer1)
            self.scales = nn.ModuleList([nn.Sequential(stem, trunk.layer2)])
            self.scales += [trunk.layer3, trunk.layer4]
            self.heads = nn.ModuleList(
                nn.Conv2d(channels, anchors * (CLASSES + 4), 3, padding=1)
                for channels, anchors in zip(CHANNELS, ANCHORS, strict=True)
            )

        def forward(self, images: Any) -> Any:
            found = []
            for scale, head in zip(self.scales, self.heads, strict=True):
                images = scale(images)
                found.append(head(images).permute(0, 2, 3, 1).reshape(len(images), -1, CLASSES + 4))
            return torch.cat(found, dim=1)

    return SSD()


def loss(net: Any, batch: Any) -> Any:
    """Cross entropy of the classes, smooth L1 of the boxes of anchors over the object."""
    import torch

    images, labels = batch
    found = net(images)
    if found.dim() == 2:  # of the small net
        found = found[:, None]
    count = found.shape[1]
    middle = torch.arange(count, device=found.device) % 4 == 0
    wanted = torch.where(middle, 1 + labels[:, None] % (CLASSES - 1), 0)
    classes = torch.nn.functional.cross_entropy(
        found[..., :CLASSES].reshape(-1, CLASSES), wanted.reshape(-1)
    )
    boxes = found[:, middle, CLASSES:]
    return classes + torch.nn.functional.smooth_l1_loss(boxes, torch.full_like(boxes, 0.5))


DETECTION = Workload(
    "pictures", pictures.SUFFIXES, ("ssd_resnet18",), Scenes, build, loss, pictures.why_not
)
