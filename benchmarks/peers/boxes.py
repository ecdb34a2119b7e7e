"""Crop boxes and flips, the same for all variants: torchvision's RandomResizedCrop distribution."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

SCALE = (0.08, 1.0)  # share of the picture's area
RATIO = (3.0 / 4.0, 4.0 / 3.0)  # width / height


@dataclass(frozen=True)
class Box:
    """A region of a picture, px from its upper left corner, and whether it is mirrored."""

    x: int
    y: int
    width: int
    height: int
    flip: bool


def draw(seed: int, round_: int, index: int, width: int, height: int) -> Box:
    """The box of one sample in one round; depends on nothing but the arguments.

    Args:
        width, height: of the picture, px.

    Source: torchvision.transforms.RandomResizedCrop.get_params, with Python's generator.
    """
    rng = random.Random(f"{seed}/{round_}/{index}")
    flip = rng.random() < 0.5
    for _ in range(10):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(rng.randint(0, width - w), rng.randint(0, height - h), w, h, flip)
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return Box((width - w) // 2, (height - h) // 2, w, h, flip)
