"""What one native pass does, in plain values: for worker processes and the native core."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from coordl import _native

Geometry = Literal[
    "random_resized_crop",
    "resize_center_crop",
    "resize",
    "center_crop",
    "random_crop",
    "resize_random_crop",
]
Filter = Literal["bilinear", "bicubic", "nearest"]
PadMode = Literal["constant", "edge", "reflect", "symmetric"]
Pixel = Literal["float32", "uint8", "float16", "bfloat16"]
Triple = tuple[float, float, float]
Range = tuple[float, float]

_DTYPES = {
    "float32": torch.float32,
    "uint8": torch.uint8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class Colour(NamedTuple):
    """One of the user's colour transforms.

    Attributes:
        kind: jitter (ColorJitter) or grey (Grayscale, RandomGrayscale).
        probability: of grey.
        ranges: of jitter's brightness, contrast and saturation factors; None: left alone.
    """

    kind: Literal["jitter", "grey"]
    probability: float = 1.0
    ranges: tuple[Range | None, Range | None, Range | None] = (None, None, None)


class Erase(NamedTuple):
    """RandomErasing.

    Attributes:
        scale, ratio: share of the area, and height / width.
        value: what is written, channel by channel, as it stands in the finished sample.
    """

    probability: float
    scale: Range
    ratio: Range
    value: Triple


_FORMAT_NAMES = {"jpeg": "JPEG", "png": "PNG", "webp": "WebP"}


def format_names() -> str:
    """What the native pass decodes in this build, as a reader says it: "JPEG, PNG or WebP"."""
    names = [_FORMAT_NAMES[name] for name in _native.formats()]
    first, last = ", ".join(names[:-1]), names[-1]
    return f"{first} or {last}" if first else last


@dataclass(frozen=True)
class Plan:
    """Everything the native pass needs to know."""

    geometry: Geometry
    out_height: int
    out_width: int
    resize_shorter: int = 256  # resize_*_crop: the shorter edge before the crop
    scale: Range = (0.08, 1.0)  # random_resized_crop: share of the area
    ratio: Range = (3.0 / 4.0, 4.0 / 3.0)  # random_resized_crop: width / height
    flip_probability: float = 0.0
    pixel: Pixel = "float32"
    mean: Triple | None = None  # of values in 0..1
    std: Triple | None = None
    steps: tuple[str, ...] = field(default=(), compare=False)  # the user's transforms, for display
    filter: Filter = "bilinear"
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # *random_crop: left, top, right, bottom
    pad_if_needed: bool = False
    pad_mode: PadMode = "constant"
    fill: tuple[int, int, int] = (0, 0, 0)  # levels
    vertical_flip_probability: float = 0.0
    colours: tuple[Colour, ...] = ()
    erase: Erase | None = None
    layout: Literal["chw", "hwc"] = "chw"  # hwc: torch's channels_last

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one prepared sample: channels, height, width."""
        return 3, self.out_height, self.out_width

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Its shape in memory, C order: the same, or height, width, channels."""
        return self.shape if self.layout == "chw" else (self.out_height, self.out_width, 3)

    @property
    def dtype(self) -> torch.dtype:
        """Type of one prepared sample."""
        return _DTYPES[self.pixel]

    def with_layout(self, layout: Literal["chw", "hwc"]) -> Plan:
        """The same samples, otherwise laid out in memory."""
        return dataclasses.replace(self, layout=layout)

    def tensor_of(self, stored: Any, memory: torch.Tensor | None = None) -> torch.Tensor:
        """The array a pass wrote, as a tensor over the same memory: (..., 3, H, W).

        memory: a tensor over the same, where there is one, whose storage is then the result's.
        """
        tensor = torch.from_numpy(stored)
        if memory is not None:
            storage, shape = memory.untyped_storage(), tensor.shape
            tensor = tensor.new_empty(0).set_(storage, 0, shape)  # type: ignore[call-overload]
        if self.pixel == "bfloat16":  # numpy has no such type: its bits
            tensor = tensor.view(torch.bfloat16)
        return tensor if self.layout == "chw" else tensor.movedim(-1, -3)

    def native_pass(self) -> _native.Pass:
        """The same for the native core."""
        mean = self.mean or (0.0, 0.0, 0.0)
        std = self.std or (1.0, 1.0, 1.0)
        erase = self.erase or Erase(0.0, (0.0, 0.0), (1.0, 1.0), (0.0, 0.0, 0.0))
        return _native.Pass(
            geometry=self.geometry,
            out_height=self.out_height,
            out_width=self.out_width,
            resize_shorter=self.resize_shorter,
            scale=self.scale,
            ratio=self.ratio,
            filter=self.filter,
            padding=self.padding,
            pad_if_needed=self.pad_if_needed,
            pad_mode=self.pad_mode,
            fill=self.fill,
            flip_probability=self.flip_probability,
            vertical_flip_probability=self.vertical_flip_probability,
            colours=list(self.colours),
            erase_probability=erase.probability,
            erase_scale=erase.scale,
            erase_ratio=erase.ratio,
            erase_value=erase.value,
            layout=self.layout,
            pixel=self.pixel,
            pixel_scale=tuple(1 / (255 * s) for s in std),
            pixel_bias=tuple(-m / s for m, s in zip(mean, std, strict=True)),
        )

    def describe(self) -> list[str]:
        """Lines for DataLoader.plan()."""
        lines = [f"prep: one native pass, {format_names()} bytes -> pixels in the minibatch, for"]
        lines += [f"  {step}" for step in self.steps]
        what = f"{self.pixel} {self.shape}" + (" channels_last" if self.layout == "hwc" else "")
        lines.append(f"  -> {what}; other formats: Pillow, same draws")
        return lines


@dataclass(frozen=True)
class Prefix:
    """A native pass for the first transforms, and what Python does after it.

    Attributes:
        plan: of the first transforms; its samples are what `rest` takes.
        rest: the user's other transforms, in their order.
        takes: what the first of them gets: a Pillow image, a tensor, or torchvision's tv_tensor.
    """

    plan: Plan
    rest: tuple[Callable[[Any], Any], ...]
    takes: Literal["image", "tensor", "tv_tensor"]

    def describe(self) -> list[str]:
        """Lines for DataLoader.plan()."""
        lines = ["  after a native pass in the same process for"]
        lines += [f"    {step}" for step in self.plan.steps]
        return lines


@dataclass(frozen=True)
class Refusal:
    """Why a transform does not run natively.

    Attributes:
        prefix: the part of it that can, where there is one.
    """

    reason: str
    prefix: Prefix | None = None

    def describe(self) -> list[str]:
        """Lines for DataLoader.plan()."""
        return [f"prep: Python, as torch would run it: {self.reason}"]
