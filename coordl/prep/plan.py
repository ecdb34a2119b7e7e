"""The user's transforms, compiled into one native pass, or the reason why not.

Recognised: Compose of torchvision.transforms (v1 and v2) or coordl.transforms with

    RandomResizedCrop | Resize(n), CenterCrop | Resize((h, w)) | CenterCrop    bilinear, antialias
    RandomHorizontalFlip                                                       after the geometry
    ToTensor | PILToTensor | ToImage [, ToDtype(float32, scale=True)]
    Normalize                                                                  floats only

Anything else is refused as a whole and runs as torch would run it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from coordl import _native
from coordl.prep.known import Unknown, name_of

Geometry = Literal["random_resized_crop", "resize_center_crop", "resize", "center_crop"]
Triple = tuple[float, float, float]

_MAX_EDGE = 16384
_FORMAT_NAMES = {"jpeg": "JPEG", "png": "PNG", "webp": "WebP"}


@dataclass(frozen=True)
class Refusal:
    """Why a transform does not run natively."""

    reason: str

    def describe(self) -> list[str]:
        """Lines for DataLoader.plan()."""
        return [f"prep: Python, as torch would run it: {self.reason}"]


@dataclass(frozen=True)
class Plan:
    """Everything the native pass needs to know; plain values, so it travels to worker processes."""

    geometry: Geometry
    out_height: int
    out_width: int
    resize_shorter: int = 256  # resize_center_crop: the shorter edge before the crop
    scale: tuple[float, float] = (0.08, 1.0)  # random_resized_crop: share of the area
    ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0)  # random_resized_crop: width / height
    flip_probability: float = 0.0
    pixel: Literal["float32", "uint8"] = "float32"
    mean: Triple | None = None  # of values in 0..1
    std: Triple | None = None
    steps: tuple[str, ...] = field(default=(), compare=False)  # the user's transforms, for display

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one prepared sample: channels, height, width."""
        return 3, self.out_height, self.out_width

    @property
    def dtype(self) -> torch.dtype:
        """Type of one prepared sample: torch.float32 or torch.uint8."""
        return torch.uint8 if self.pixel == "uint8" else torch.float32

    def native_pass(self) -> _native.Pass:
        """The same for the native core."""
        mean = self.mean or (0.0, 0.0, 0.0)
        std = self.std or (1.0, 1.0, 1.0)
        return _native.Pass(
            geometry=self.geometry,
            out_height=self.out_height,
            out_width=self.out_width,
            resize_shorter=self.resize_shorter,
            scale=self.scale,
            ratio=self.ratio,
            flip_probability=self.flip_probability,
            pixel=self.pixel,
            pixel_scale=tuple(1 / (255 * s) for s in std),
            pixel_bias=tuple(-m / s for m, s in zip(mean, std, strict=True)),
        )

    def describe(self) -> list[str]:
        """Lines for DataLoader.plan()."""
        lines = [f"prep: one native pass, {format_names()} bytes -> pixels in the minibatch, for"]
        lines += [f"  {step}" for step in self.steps]
        lines.append(f"  -> {self.pixel} {self.shape}; other formats: Pillow, same crops and flips")
        return lines


def format_names() -> str:
    """What the native pass decodes in this build, as a reader says it: "JPEG, PNG or WebP"."""
    names = [_FORMAT_NAMES[name] for name in _native.formats()]
    first, last = ", ".join(names[:-1]), names[-1]
    return f"{first} or {last}" if first else last


def compile_plan(transform: Any) -> Plan | Refusal:
    """Compiles a transform of images, or says why it cannot be.

    Args:
        transform: what the user gave the data set as `transform=`.
    """
    try:
        steps = _flatten(transform)
        builder = _Builder()
        for name, step in steps:
            builder.add(name, step)
        return builder.finish(tuple(_display(name, step) for name, step in steps))
    except Unknown as reason:
        return Refusal(str(reason))


def _flatten(transform: Any) -> list[tuple[str, Any]]:
    if transform is None:
        raise Unknown("there is no transform: samples stay Pillow images")
    name = name_of(transform)
    if name != "Compose":
        return [(name, transform)]
    return [step for inner in transform.transforms for step in _flatten(inner)]


def _display(name: str, step: Any) -> str:
    shown = {
        "RandomResizedCrop": ("size", "scale", "ratio"),
        "Resize": ("size",),
        "CenterCrop": ("size",),
        "RandomHorizontalFlip": ("p",),
        "ToDtype": ("dtype", "scale"),
        "Normalize": ("mean", "std"),
    }
    values = ", ".join(f"{key}={_short(getattr(step, key))}" for key in shown.get(name, ()))
    return f"{name}({values})"


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(_short(x) for x in value) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Builder:
    """Takes the steps in order; raises Unknown at the first that does not fit."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.tensor: Literal["uint8", "float32"] | None = None
        self.resize_shorter: int | None = None  # waits for its CenterCrop

    def add(self, name: str, step: Any) -> None:
        takes: dict[str, Callable[[Any], None]] = {
            "RandomResizedCrop": self._random_resized_crop,
            "Resize": self._resize,
            "CenterCrop": self._center_crop,
            "RandomHorizontalFlip": self._flip,
            "ToTensor": lambda _: self._to_tensor(name, "float32"),
            "PILToTensor": lambda _: self._to_tensor(name, "uint8"),
            "ToImage": lambda _: self._to_tensor(name, "uint8"),
            "ToDtype": self._to_dtype,
            "Normalize": self._normalize,
        }
        if self.tensor and type(step).__module__ == "coordl.transforms" and name != "Normalize":
            raise Unknown(f"{name} of coordl.transforms takes Pillow images, not tensors")
        takes[name](step)

    def finish(self, steps: tuple[str, ...]) -> Plan:
        if self.resize_shorter is not None:
            raise Unknown(
                f"Resize({self.resize_shorter}) without CenterCrop gives images of varying size"
            )
        if "geometry" not in self.values:
            raise Unknown("nothing brings the images to one size")
        if self.tensor is None:
            raise Unknown("nothing makes tensors of the images (ToTensor)")
        return Plan(pixel=self.tensor, steps=steps, **self.values)

    def _random_resized_crop(self, step: Any) -> None:
        self._one_geometry("RandomResizedCrop")
        self._filter("RandomResizedCrop", step)
        self.values["scale"] = _range(step.scale, "RandomResizedCrop's scale")
        self.values["ratio"] = _range(step.ratio, "RandomResizedCrop's ratio")
        self._size("random_resized_crop", step.size)

    def _resize(self, step: Any) -> None:
        self._one_geometry("Resize")
        self._filter("Resize", step)
        if step.max_size is not None:
            raise Unknown("Resize with max_size has no native form")
        size = step.size
        if isinstance(size, (list, tuple)) and len(size) == 1:
            size = size[0]
        if isinstance(size, int):
            self.resize_shorter = _edge(size)
        else:
            self._size("resize", size)

    def _center_crop(self, step: Any) -> None:
        if self.resize_shorter is None:
            self._one_geometry("CenterCrop")
            self._size("center_crop", step.size)
            return
        shorter, self.resize_shorter = self.resize_shorter, None
        self._size("resize_center_crop", step.size)
        if max(self.values["out_height"], self.values["out_width"]) > shorter:
            raise Unknown(f"CenterCrop pads what Resize({shorter}) makes")
        self.values["resize_shorter"] = shorter

    def _flip(self, step: Any) -> None:
        if "geometry" not in self.values:
            raise Unknown("RandomHorizontalFlip comes before the images have their final size")
        if "flip_probability" in self.values:
            raise Unknown("there are two RandomHorizontalFlip")
        p = _number(step.p, "RandomHorizontalFlip's p")
        if not 0 <= p <= 1:
            raise Unknown(f"RandomHorizontalFlip's p is {p}")
        self.values["flip_probability"] = p

    def _to_tensor(self, name: str, pixel: Literal["uint8", "float32"]) -> None:
        if self.tensor is not None:
            raise Unknown(f"{name} gets a tensor already")
        self.tensor = pixel

    def _to_dtype(self, step: Any) -> None:
        if self.tensor is None:
            raise Unknown("ToDtype comes before the image is a tensor, where it does nothing")
        if step.dtype is torch.uint8 and self.tensor == "uint8":
            return
        if step.dtype is not torch.float32:
            raise Unknown(f"ToDtype to {step.dtype} has no native form")
        if self.tensor == "uint8" and not step.scale:
            raise Unknown("ToDtype(float32) without scale=True keeps 0..255: no native form")
        self.tensor = "float32"

    def _normalize(self, step: Any) -> None:
        if self.tensor != "float32":
            raise Unknown("Normalize needs float tensors before it (ToTensor)")
        if "mean" in self.values:
            raise Unknown("there are two Normalize")
        self.values["mean"] = _triple(step.mean, "mean")
        self.values["std"] = _triple(step.std, "std")
        if any(s == 0 for s in self.values["std"]):
            raise Unknown("Normalize divides by a std of 0")

    def _one_geometry(self, name: str) -> None:
        if "geometry" in self.values or self.resize_shorter is not None:
            raise Unknown(f"{name} follows another crop or resize")

    def _filter(self, name: str, step: Any) -> None:
        kind = getattr(step.interpolation, "value", step.interpolation)
        if kind not in ("bilinear", 2):  # 2: Pillow's number for it
            raise Unknown(f"{name} with {kind} interpolation has no native form, only bilinear")
        if step.antialias is not True:
            raise Unknown(f"{name} without antialias=True has no native form")
        if self.tensor == "float32":
            raise Unknown(f"{name} after ToTensor resizes floats, which rounds otherwise")

    def _size(self, geometry: Geometry, size: Any) -> None:
        if not isinstance(size, (list, tuple)) or len(size) != 2:
            raise Unknown(f"a size of {size!r} is not (height, width)")
        self.values["geometry"] = geometry
        self.values["out_height"], self.values["out_width"] = _edge(size[0]), _edge(size[1])


def _edge(value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= _MAX_EDGE:
        raise Unknown(f"an edge of {value!r} px is not an int in 1..{_MAX_EDGE}")
    return value


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Unknown(f"{what} is {value!r}, not a number") from None
    if not math.isfinite(number):
        raise Unknown(f"{what} is {number}")
    return number


def _range(pair: Any, what: str) -> tuple[float, float]:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise Unknown(f"{what} is {pair!r}, not (low, high)")
    low, high = _number(pair[0], what), _number(pair[1], what)
    if not 1e-9 < low <= high < 1e9:
        raise Unknown(f"{what} is ({low:g}, {high:g}): low must be above 0 and at most high")
    return low, high


def _triple(values: Any, what: str) -> Triple:
    try:
        numbers = [_number(value, f"Normalize's {what}") for value in values]
    except TypeError:
        raise Unknown(f"Normalize's {what} is {values!r}, not three numbers") from None
    if len(numbers) == 1:
        numbers *= 3  # one number serves all channels, as in torch
    if len(numbers) != 3:
        raise Unknown(f"Normalize's {what} has {len(numbers)} channels, pictures have 3")
    return numbers[0], numbers[1], numbers[2]
