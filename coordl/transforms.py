"""Image transforms under torchvision's names, with Pillow: usable in any DataLoader, and compiled
by coordl.DataLoader into one native pass.

Names, arguments and attributes are torchvision's, and so are the random numbers: with the same
`torch.manual_seed` the same crops and flips come out. Only what the usual training recipes of image
folders need is here; anything else is torchvision's business.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "CenterCrop",
    "Compose",
    "Normalize",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "ToTensor",
]


class Compose:
    """Applies transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        lines = [f"    {transform}" for transform in self.transforms]
        return "\n".join(["Compose(", *lines, ")"])


class RandomResizedCrop:
    """Crops a random part of random shape and resizes it to `size`, bilinear with antialias.

    Args:
        size: edge of the square result in pixels, or (height, width).
        scale: (low, high) share of the image's area.
        ratio: (low, high) width / height of the crop, log-uniform.
    """

    interpolation = "bilinear"
    antialias = True

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
    ) -> None:
        self.size = _height_width(size)
        self.scale = _low_high(scale, "scale")
        self.ratio = _low_high(ratio, "ratio")

    def __call__(self, image: Image.Image) -> Image.Image:
        pillow = _pillow()
        _check_image(image)
        top, left, height, width = self.get_params(image, self.scale, self.ratio)
        crop = image.crop((left, top, left + width, top + height))
        return crop.resize((self.size[1], self.size[0]), pillow.Resampling.BILINEAR)

    @staticmethod
    def get_params(
        image: Image.Image, scale: Sequence[float], ratio: Sequence[float]
    ) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random crop, from torch's global generator."""
        width, height = image.size
        low, high = torch.log(torch.tensor(ratio)).tolist()
        for _ in range(10):
            area = height * width * _uniform(scale[0], scale[1])
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


class Resize:
    """Resizes, bilinear with antialias.

    Args:
        size: (height, width), or one int: the shorter edge, keeping the shape.
    """

    interpolation = "bilinear"
    antialias = True
    max_size = None

    def __init__(self, size: int | Sequence[int]) -> None:
        if isinstance(size, Sequence) and len(size) == 1:
            size = size[0]
        _height_width(size)
        self.size: int | tuple[int, int] = size if isinstance(size, int) else _height_width(size)

    def __call__(self, image: Image.Image) -> Image.Image:
        pillow = _pillow()
        _check_image(image)
        if isinstance(self.size, tuple):
            height, width = self.size
        elif image.width <= image.height:
            width, height = self.size, int(self.size * image.height / image.width)
        else:
            width, height = int(self.size * image.width / image.height), self.size
        return image.resize((width, height), pillow.Resampling.BILINEAR)

    def __repr__(self) -> str:
        return f"Resize(size={self.size})"


class CenterCrop:
    """Cuts the middle out; an image smaller than that is padded with black.

    Args:
        size: edge of the square result in pixels, or (height, width).
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _height_width(size)

    def __call__(self, image: Image.Image) -> Image.Image:
        _check_image(image)
        from coordl.prep.vision import center_crop

        return center_crop(image, self.size[1], self.size[0])

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"


class RandomHorizontalFlip:
    """Mirrors left and right with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability and must be in [0, 1]; got {p}")
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        pillow = _pillow()
        _check_image(image)
        if torch.rand(1).item() < self.p:
            return image.transpose(pillow.Transpose.FLIP_LEFT_RIGHT)
        return image

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


class ToTensor:
    """Pillow image -> float32 tensor (channels, height, width), levels 0..255 scaled to 0..1."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        import numpy as np

        _check_image(image)
        if image.mode not in ("L", "RGB", "RGBA", "CMYK", "YCbCr"):
            raise ValueError(
                f"ToTensor takes images of 8 bits a channel; this one has mode {image.mode!r}. "
                "Convert it first: image.convert('RGB')."
            )
        levels = np.array(image, copy=True)
        levels = levels.reshape(image.height, image.width, -1).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(levels)).to(torch.float32).div(255)

    def __repr__(self) -> str:
        return "ToTensor()"


class Normalize:
    """(tensor - mean) / std, channel by channel.

    Args:
        mean, std: one number for each channel; std not 0.
        inplace: changes the tensor given.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels, std {len(std)}: give as many")
        if any(value == 0 for value in std):
            raise ValueError(f"std must not hold 0, got {tuple(std)}: it divides")
        self.mean, self.std, self.inplace = mean, std, inplace

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            what = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise TypeError(f"Normalize takes a float tensor, got {what}: put ToTensor() before it")
        mean = torch.as_tensor(self.mean, dtype=tensor.dtype, device=tensor.device)
        std = torch.as_tensor(self.std, dtype=tensor.dtype, device=tensor.device)
        if not self.inplace:
            tensor = tensor.clone()
        return tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


def _uniform(low: float, high: float) -> float:
    return torch.empty(1).uniform_(low, high).item()


def _height_width(size: int | Sequence[int]) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(x, numbers.Integral) and x > 0 for x in pair):
        raise ValueError(f"size must be a positive int or (height, width) in pixels; got {size!r}")
    return int(pair[0]), int(pair[1])


def _low_high(pair: Sequence[float], name: str) -> tuple[float, float]:
    if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise ValueError(f"{name} must be (low, high) with 0 < low <= high; got {pair!r}")
    return pair[0], pair[1]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "coordl.transforms needs Pillow, which is not installed. "
            "Install it: pip install 'data-stall-toolkit[images]'"
        ) from error
    return Image


def _check_image(image: Any) -> None:
    if not isinstance(image, _pillow().Image):
        raise TypeError(
            f"expected a Pillow image, got {type(image).__name__}: these transforms run before "
            "ToTensor, on what the data set's loader returns"
        )
