"""Transforms that make tensors, and those that work on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from coordl.transforms.checks import check_image, check_probability, low_high, uniform

if TYPE_CHECKING:
    from PIL import Image


class ToTensor:
    """Pillow image -> float32 tensor (channels, height, width), levels 0..255 scaled to 0..1."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        check_image(image)
        return _levels(image, "ToTensor").to(torch.float32).div(255)

    def __repr__(self) -> str:
        return "ToTensor()"


class PILToTensor:
    """Pillow image -> uint8 tensor (channels, height, width)."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        check_image(image)
        return _levels(image, "PILToTensor")

    def __repr__(self) -> str:
        return "PILToTensor()"


class ConvertImageDtype:
    """uint8 tensor -> floats in 0..1; float tensor -> another float type.

    Args:
        dtype: torch.float32, torch.float16 or torch.bfloat16.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        if not dtype.is_floating_point:
            raise ValueError(f"dtype is a float type, got {dtype}")
        self.dtype = dtype

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"ConvertImageDtype takes a tensor, got {type(tensor).__name__}: put PILToTensor() "
                "before it"
            )
        if tensor.is_floating_point():
            return tensor.to(self.dtype)
        return tensor.to(self.dtype) / 255

    def __repr__(self) -> str:
        return f"ConvertImageDtype(dtype={self.dtype})"


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


class RandomErasing:
    """Overwrites a random rectangle of a tensor.

    Args:
        p: probability.
        scale: (low, high) share of the image's area.
        ratio: (low, high) height / width of the rectangle, log-uniform.
        value: number, or one for each channel; "random": normal noise.
        inplace: changes the tensor given.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float | Sequence[float] | str = 0,
        inplace: bool = False,
    ) -> None:
        if isinstance(value, str) and value != "random":
            raise ValueError(f"value is a number, numbers or 'random', got {value!r}")
        if len(scale) != 2 or not 0 <= scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) in [0, 1]; got {scale!r}")
        self.p = check_probability(p)
        self.scale, self.ratio = scale, low_high(ratio, "ratio")
        self.value, self.inplace = value, inplace

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"RandomErasing takes a tensor, got {type(tensor).__name__}: put ToTensor() before "
                "it"
            )
        if not torch.rand(1) < self.p:
            return tensor
        top, left, height, width, value = self.get_params(
            tensor, self.scale, self.ratio, self._numbers(tensor.shape[-3])
        )
        if not self.inplace:
            tensor = tensor.clone()
        tensor[..., top : top + height, left : left + width] = value
        return tensor

    def _numbers(self, channels: int) -> list[float] | None:
        if isinstance(self.value, str):
            return None
        given = self.value if isinstance(self.value, Sequence) else [self.value]
        if len(given) not in (1, channels):
            raise ValueError(f"value has {len(given)} numbers, not 1 or {channels} as the tensor")
        return [float(number) for number in given]

    @staticmethod
    def get_params(
        tensor: torch.Tensor,
        scale: Sequence[float],
        ratio: Sequence[float],
        value: list[float] | None = None,
    ) -> tuple[int, int, int, int, torch.Tensor]:
        """(top, left, height, width, value) from torch's global generator; value None: noise."""
        channels, height, width = tensor.shape[-3:]
        low, high = torch.log(torch.tensor(ratio)).tolist()
        for _ in range(10):
            area = height * width * uniform(scale[0], scale[1])
            shape = torch.exp(torch.empty(1).uniform_(low, high)).item()
            rows, columns = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if not (rows < height and columns < width):
                continue
            if value is None:
                colour = torch.empty([channels, rows, columns]).normal_()
            else:
                colour = torch.tensor(value)[:, None, None]
            top = int(torch.randint(0, height - rows + 1, (1,)).item())
            left = int(torch.randint(0, width - columns + 1, (1,)).item())
            return top, left, rows, columns, colour
        return 0, 0, height, width, tensor

    def __repr__(self) -> str:
        scale, ratio = tuple(self.scale), tuple(self.ratio)
        return f"RandomErasing(p={self.p}, scale={scale}, ratio={ratio}, value={self.value})"


def _levels(image: Image.Image, name: str) -> torch.Tensor:
    import numpy as np

    if image.mode not in ("L", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise ValueError(
            f"{name} takes images of 8 bits a channel; this one has mode {image.mode!r}. "
            "Convert it first: image.convert('RGB')."
        )
    levels = np.array(image, copy=True)
    levels = levels.reshape(image.height, image.width, -1).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(levels))
