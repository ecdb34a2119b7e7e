"""Transforms that crop, resize and mirror Pillow images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from coordl.transforms.boxes import Move
from coordl.transforms.checks import (
    check_image,
    check_probability,
    height_width,
    low_high,
    pillow,
    uniform,
)

if TYPE_CHECKING:
    from PIL import Image

_FILTERS = ("bilinear", "bicubic", "nearest")
_PAD_MODES = ("constant", "edge", "reflect", "symmetric")


class _Geometry(ABC):
    """A transform that says where it brought the pixels, for boxes to follow."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.moved(image)[0]

    @abstractmethod
    def moved(self, image: Image.Image) -> tuple[Image.Image, Move]:
        """The image after the transform, and where its points went."""


class RandomResizedCrop(_Geometry):
    """Crops a random part of random shape and resizes it to `size`, with antialias.

    Args:
        size: edge of the square result in pixels, or (height, width).
        scale: (low, high) share of the image's area.
        ratio: (low, high) width / height of the crop, log-uniform.
        interpolation: bilinear, bicubic or nearest (which has no antialias).
    """

    antialias = True

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: Any = "bilinear",
    ) -> None:
        self.interpolation = _filter_name(interpolation)
        self.size = height_width(size)
        self.scale = low_high(scale, "scale")
        self.ratio = low_high(ratio, "ratio")

    def moved(self, image: Image.Image) -> tuple[Image.Image, Move]:
        check_image(image)
        top, left, height, width = self.get_params(image, self.scale, self.ratio)
        crop = image.crop((left, top, left + width, top + height))
        x, y = self.size[1] / width, self.size[0] / height
        resized = crop.resize((self.size[1], self.size[0]), _resampling(self.interpolation))
        return resized, Move(x, -left * x, y, -top * y)

    @staticmethod
    def get_params(
        image: Image.Image, scale: Sequence[float], ratio: Sequence[float]
    ) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random crop, from torch's global generator."""
        width, height = image.size
        low, high = torch.log(torch.tensor(ratio)).tolist()
        for _ in range(10):
            area = height * width * uniform(scale[0], scale[1])
            shape = torch.exp(torch.empty(1).uniform_(low, high)).item()
            crop_width = round(math.sqrt(area * shape))
            crop_height = round(math.sqrt(area / shape))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(torch.randint(0, height - crop_height + 1, (1,)).item())
                left = int(torch.randint(0, width - crop_width + 1, (1,)).item())
                return top, left, crop_height, crop_width
        crop_width, crop_height = width, height
        if width / height < min(ratio):
            crop_height = round(width / min(ratio))
        elif width / height > max(ratio):
            crop_width = round(height * max(ratio))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width

    def __repr__(self) -> str:
        scale, ratio = (tuple(round(x, 4) for x in pair) for pair in (self.scale, self.ratio))
        return f"RandomResizedCrop(size={self.size}, scale={scale}, ratio={ratio})"


class Resize(_Geometry):
    """Resizes, with antialias.

    Args:
        size: (height, width), or one int: the shorter edge, keeping the shape.
        interpolation: bilinear, bicubic or nearest (which has no antialias).
    """

    antialias = True
    max_size = None

    def __init__(self, size: int | Sequence[int], interpolation: Any = "bilinear") -> None:
        self.interpolation = _filter_name(interpolation)
        if isinstance(size, Sequence) and len(size) == 1:
            size = size[0]
        height_width(size)
        self.size: int | tuple[int, int] = size if isinstance(size, int) else height_width(size)

    def moved(self, image: Image.Image) -> tuple[Image.Image, Move]:
        check_image(image)
        if isinstance(self.size, tuple):
            height, width = self.size
        elif image.width <= image.height:
            width, height = self.size, int(self.size * image.height / image.width)
        else:
            width, height = int(self.size * image.width / image.height), self.size
        move = Move(scale_x=width / image.width, scale_y=height / image.height)
        return image.resize((width, height), _resampling(self.interpolation)), move

    def __repr__(self) -> str:
        return f"Resize(size={self.size})"


class CenterCrop(_Geometry):
    """Cuts the middle out; an image smaller than that is padded with black.

    Args:
        size: edge of the square result in pixels, or (height, width).
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = height_width(size)

    def moved(self, image: Image.Image) -> tuple[Image.Image, Move]:
        check_image(image)
        from coordl.prep.vision import center_crop, center_shift

        height, width = self.size
        shift_x, shift_y = center_shift(image, width, height)
        return center_crop(image, width, height), Move(shift_x=shift_x, shift_y=shift_y)

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"


class RandomCrop(_Geometry):
    """Cuts a random part of `size` out, after padding.

    Args:
        size: edge of the square result in pixels, or (height, width).
        padding: pixels added on every side; or (left and right, top and bottom); or (left, top,
            right, bottom).
        pad_if_needed: adds on both sides what an image lacks; else a smaller one is an error.
        fill: level, or one for each channel, of constant padding.
        padding_mode: constant, edge, reflect or symmetric.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: int | Sequence[int] = 0,
        padding_mode: str = "constant",
    ) -> None:
        if padding_mode not in _PAD_MODES:
            raise ValueError(f"padding_mode is one of {_PAD_MODES}, got {padding_mode!r}")
        pads = [padding] if not isinstance(padding, Sequence) else padding
        if len(pads) not in (1, 2, 4) or any(pad is not None and pad < 0 for pad in pads):
            raise ValueError(f"padding is 1, 2 or 4 numbers of pixels, got {padding!r}")
        self.size = height_width(size)
        self.padding, self.pad_if_needed = padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode

    def moved(self, image: Image.Image) -> tuple[Image.Image, Move]:
        check_image(image)
        height, width = self.size
        x = y = 0
        if self.padding is not None:
            x, y, _, _ = _sides(self.padding)
            image = self._pad(image, self.padding)
        if self.pad_if_needed and image.width < width:
            x += width - image.width
            image = self._pad(image, (width - image.width, 0))
        if self.pad_if_needed and image.height < height:
            y += height - image.height
            image = self._pad(image, (0, height - image.height))
        top, left, height, width = self.get_params(image, self.size)
        crop = image.crop((left, top, left + width, top + height))
        return crop, Move(shift_x=x - left, shift_y=y - top)

    @staticmethod
    def get_params(image: Image.Image, output_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random crop, from torch's global generator."""
        height, width = output_size
        if image.height < height or image.width < width:
            raise ValueError(
                f"Required crop size {output_size} is larger than input image size "
                f"{(image.height, image.width)}"
            )
        if (image.height, image.width) == output_size:
            return 0, 0, height, width
        top = int(torch.randint(0, image.height - height + 1, (1,)).item())
        left = int(torch.randint(0, image.width - width + 1, (1,)).item())
        return top, left, height, width

    def _pad(self, image: Image.Image, padding: int | Sequence[int]) -> Image.Image:
        import numpy as np
        from PIL import Image, ImageOps

        left, top, right, bottom = _sides(padding)
        if self.padding_mode == "constant":
            fill: Any = self.fill
            if len(image.getbands()) > 1:
                fill = tuple(fill) if isinstance(fill, Sequence) else (fill,) * 3
            return ImageOps.expand(image, (left, top, right, bottom), fill)
        levels = np.asarray(image)
        around = [(top, bottom), (left, right), (0, 0)][: levels.ndim]
        return Image.fromarray(np.pad(levels, around, mode=self.padding_mode))  # type: ignore[call-overload]

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


class _RandomFlip(_Geometry):
    direction = ""  # Pillow's name of the transpose

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability(p)

    def moved(self, image: Image.Image) -> tuple[Image.Image, Move]:
        library = pillow()
        check_image(image)
        if torch.rand(1).item() >= self.p:
            return image, Move()
        return image.transpose(library.Transpose[self.direction]), self._mirrored(image)

    @abstractmethod
    def _mirrored(self, image: Image.Image) -> Move:
        """Where its points go."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomHorizontalFlip(_RandomFlip):
    """Mirrors left and right with probability `p`."""

    direction = "FLIP_LEFT_RIGHT"

    def _mirrored(self, image: Image.Image) -> Move:
        return Move(scale_x=-1, shift_x=image.width)


class RandomVerticalFlip(_RandomFlip):
    """Mirrors top and bottom with probability `p`."""

    direction = "FLIP_TOP_BOTTOM"

    def _mirrored(self, image: Image.Image) -> Move:
        return Move(scale_y=-1, shift_y=image.height)


def _sides(padding: int | Sequence[int]) -> list[int]:
    """Left, top, right, bottom."""
    pads = [padding] if isinstance(padding, int) else list(padding)
    return pads if len(pads) == 4 else [pads[0], pads[-1]] * 2


def _filter_name(interpolation: Any) -> str:
    """torchvision's InterpolationMode, or its value."""
    name = getattr(interpolation, "value", interpolation)
    if name not in _FILTERS:
        raise ValueError(f"interpolation is one of {_FILTERS}, got {name!r}")
    return str(name)


def _resampling(name: str) -> Any:
    return pillow().Resampling[name.upper()]
