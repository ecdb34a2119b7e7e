"""Arguments and inputs of transforms, checked."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import torch


def uniform(low: float, high: float) -> float:
    """From torch's global generator, as torchvision draws it."""
    return torch.empty(1).uniform_(low, high).item()


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(x, numbers.Integral) and x > 0 for x in pair):
        raise ValueError(f"size must be a positive int or (height, width) in pixels; got {size!r}")
    return int(pair[0]), int(pair[1])


def low_high(pair: Sequence[float], name: str) -> tuple[float, float]:
    if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise ValueError(f"{name} must be (low, high) with 0 < low <= high; got {pair!r}")
    return pair[0], pair[1]


def check_probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"p is a probability and must be in [0, 1]; got {p}")
    return p


def pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "coordl.transforms needs Pillow, which is not installed. "
            "Install it: pip install 'data-stall-toolkit[images]'"
        ) from error
    return Image


def check_image(image: Any) -> None:
    if not isinstance(image, pillow().Image):
        raise TypeError(
            f"expected a Pillow image, got {type(image).__name__}: these transforms run before "
            "ToTensor, on what the data set's loader returns"
        )
