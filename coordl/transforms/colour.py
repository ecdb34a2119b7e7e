"""Transforms that change the colours of Pillow images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from coordl.transforms.checks import check_image, check_probability, uniform

if TYPE_CHECKING:
    from PIL import Image

_INF = float("inf")
_NAMES = ("brightness", "contrast", "saturation", "hue")


class ColorJitter:
    """Changes brightness, contrast, saturation and hue by random factors, in random order.

    Args:
        brightness, contrast, saturation: factors from [max(0, 1 - x), 1 + x], or (low, high).
        hue: turns from [-x, x], at most 0.5, or (low, high).
    """

    def __init__(
        self,
        brightness: float | Sequence[float] = 0,
        contrast: float | Sequence[float] = 0,
        saturation: float | Sequence[float] = 0,
        hue: float | Sequence[float] = 0,
    ) -> None:
        self.brightness = _range(brightness, "brightness", 1.0, (0.0, _INF))
        self.contrast = _range(contrast, "contrast", 1.0, (0.0, _INF))
        self.saturation = _range(saturation, "saturation", 1.0, (0.0, _INF))
        self.hue = _range(hue, "hue", 0.0, (-0.5, 0.5))

    def __call__(self, image: Image.Image) -> Image.Image:
        from coordl.prep.vision import coloured

        check_image(image)
        order = torch.randperm(4).tolist()
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        factors = [None if given is None else uniform(*given) for given in ranges]
        for which in order:
            factor = factors[which]
            if factor is None:
                continue
            if _NAMES[which] == "hue":
                image = _turn_hue(image, factor)
            else:
                image = coloured(image, ((_NAMES[which], factor),))
        return image

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in _NAMES)
        return f"ColorJitter({shown})"


class Grayscale:
    """Grey pictures, of one channel or of three equal ones."""

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3):
            raise ValueError(f"num_output_channels is 1 or 3, got {num_output_channels}")
        self.num_output_channels = num_output_channels

    def __call__(self, image: Image.Image) -> Image.Image:
        check_image(image)
        return _grey(image, self.num_output_channels)

    def __repr__(self) -> str:
        return f"Grayscale(num_output_channels={self.num_output_channels})"


class RandomGrayscale:
    """Grey with probability `p`, of as many channels as before."""

    def __init__(self, p: float = 0.1) -> None:
        self.p = check_probability(p)

    def __call__(self, image: Image.Image) -> Image.Image:
        check_image(image)
        if torch.rand(1).item() < self.p:
            return _grey(image, len(image.getbands()))
        return image

    def __repr__(self) -> str:
        return f"RandomGrayscale(p={self.p})"


def _grey(image: Image.Image, channels: int) -> Image.Image:
    from PIL import Image

    grey = image.convert("L")
    return grey if channels == 1 else Image.merge("RGB", [grey] * 3)


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Adds `turn` of the whole circle, in Pillow's HSV with its 256 hues."""
    import numpy as np
    from PIL import Image

    if image.mode in ("L", "1", "I", "F"):
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.int32(turn * 255).astype(np.uint8)  # wraps around
    hue = Image.fromarray(turned)
    return Image.merge("HSV", (hue, saturation, value)).convert(image.mode)


def _range(
    value: float | Sequence[float], name: str, center: float, bounds: tuple[float, float]
) -> tuple[float, float] | None:
    """(low, high) of a factor; None where it would leave every picture as it is."""
    if isinstance(value, Sequence):
        if len(value) != 2:
            raise ValueError(f"{name} is a number or (low, high), got {value!r}")
        low, high = float(value[0]), float(value[1])
    else:
        if value < 0:
            raise ValueError(f"{name} as a single number must not be negative, got {value}")
        low, high = center - float(value), center + float(value)
        low = low if name == "hue" else max(low, 0.0)
    if not bounds[0] <= low <= high <= bounds[1]:
        raise ValueError(f"{name} must lie between {bounds[0]} and {bounds[1]}, got {value!r}")
    return None if low == high == center else (low, high)
