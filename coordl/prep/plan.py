"""The user's transforms, compiled into one native pass, or the reason why not.

Recognised: Compose of torchvision.transforms (v1 and v2) or coordl.transforms with

    RandomResizedCrop | [Resize(n),] CenterCrop | [Resize(n),] RandomCrop | Resize((h, w))
        bilinear with antialias; on Pillow images also bicubic and nearest
    RandomHorizontalFlip, RandomVerticalFlip, ColorJitter without hue, Grayscale(3), RandomGrayscale
        after the geometry, in any order
    ToTensor | PILToTensor | ToImage [, ToDtype(float type, scale=True) | ConvertImageDtype]
    Normalize, RandomErasing                                        in any order

Anything else runs as torch would run it; where the first transforms are of these, they may still be
a pass of their own (Refusal.prefix).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from coordl.prep import arguments
from coordl.prep.known import Unknown, name_of
from coordl.prep.recipe import (
    Colour,
    Erase,
    Geometry,
    Pixel,
    Plan,
    Prefix,
    Refusal,
    format_names,
)

__all__ = ["Plan", "Prefix", "Refusal", "compile_plan", "format_names", "whole_prefix"]

_MAX_COLOURS = 4  # the native core's
_FLOATS: dict[Any, Pixel] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
_SHOWN = {
    "RandomResizedCrop": ("size", "scale", "ratio"),
    "Resize": ("size",),
    "CenterCrop": ("size",),
    "RandomCrop": ("size", "padding", "padding_mode"),
    "RandomHorizontalFlip": ("p",),
    "RandomVerticalFlip": ("p",),
    "ColorJitter": ("brightness", "contrast", "saturation"),
    "Grayscale": ("num_output_channels",),
    "RandomGrayscale": ("p",),
    "ToDtype": ("dtype", "scale"),
    "ConvertImageDtype": ("dtype",),
    "Normalize": ("mean", "std"),
    "RandomErasing": ("p", "scale", "ratio", "value"),
}
_OURS_ON_TENSORS = {"Normalize", "RandomErasing", "ConvertImageDtype"}


def compile_plan(transform: Any) -> Plan | Refusal:
    """Compiles a transform of images, or says why it cannot be.

    Args:
        transform: what the user gave the data set as `transform=`.
    """
    try:
        steps = _flatten(transform)
    except Unknown as reason:
        return Refusal(str(reason))
    builder = _Builder()
    done = 0
    try:
        for step in steps:
            builder.add(name_of(step), step)
            done += 1
        return builder.finish(_display(steps))
    except Unknown as reason:
        return Refusal(str(reason), _longest_prefix(steps, done))


def whole_prefix(plan: Plan) -> Prefix:
    """A plan after which nothing is left for Python."""
    wrapped = any(step.startswith("ToImage(") for step in plan.steps)
    return Prefix(plan, (), "tv_tensor" if wrapped else "tensor")


def _longest_prefix(steps: list[Any], known: int) -> Prefix | None:
    """The most of the first `known` steps that Python can take over from; None where none can."""
    for count in range(known, 0, -1):
        builder = _Builder()
        for step in steps[:count]:
            builder.add(name_of(step), step)
        image = builder.pixel is None
        builder.pixel = builder.pixel or "uint8"
        try:
            prefix = whole_prefix(builder.finish(_display(steps[:count])))
        except Unknown:
            continue
        rest = tuple(steps[count:])
        if image:  # a Pillow image's memory: rows of RGB
            return Prefix(prefix.plan.with_layout("hwc"), rest, "image")
        return dataclasses.replace(prefix, rest=rest)
    return None


def _flatten(transform: Any) -> list[Any]:
    if transform is None:
        raise Unknown("there is no transform: samples stay Pillow images")
    if type(transform).__qualname__ != "Compose" or name_of(transform) != "Compose":
        return [transform]
    return [step for inner in transform.transforms for step in _flatten(inner)]


def _display(steps: list[Any]) -> tuple[str, ...]:
    return tuple(_shown(name_of(step), step) for step in steps)


def _shown(name: str, step: Any) -> str:
    values = {key: getattr(step, key) for key in _SHOWN.get(name, ())}
    filter_name = getattr(getattr(step, "interpolation", None), "value", None)
    if filter_name not in (None, "bilinear"):
        values["interpolation"] = filter_name
    return f"{name}({', '.join(f'{key}={_short(value)}' for key, value in values.items())})"


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(_short(x) for x in value) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Builder:
    """Takes the steps in order; raises Unknown at the first that does not fit."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.pixel: Pixel | None = None  # None: still a Pillow image
        self.resize_shorter: int | None = None  # waits for its crop

    def add(self, name: str, step: Any) -> None:
        takes: dict[str, Callable[[str, Any], None]] = {
            "RandomResizedCrop": self._random_resized_crop,
            "Resize": self._resize,
            "CenterCrop": self._center_crop,
            "RandomCrop": self._random_crop,
            "RandomHorizontalFlip": self._flip,
            "RandomVerticalFlip": self._flip,
            "ColorJitter": self._jitter,
            "Grayscale": self._grey,
            "RandomGrayscale": self._grey,
            "ToTensor": self._to_tensor,
            "PILToTensor": self._to_tensor,
            "ToImage": self._to_tensor,
            "ToDtype": self._to_dtype,
            "ConvertImageDtype": self._to_dtype,
            "Normalize": self._normalize,
            "RandomErasing": self._erase,
        }
        ours = type(step).__module__.startswith("coordl.")
        if self.pixel and ours and name not in _OURS_ON_TENSORS:
            raise Unknown(f"{name} of coordl.transforms takes Pillow images, not tensors")
        takes[name](name, step)

    def finish(self, steps: tuple[str, ...]) -> Plan:
        if self.resize_shorter is not None:
            raise Unknown(
                f"Resize({self.resize_shorter}) without a crop gives images of varying size"
            )
        if "geometry" not in self.values:
            raise Unknown("nothing brings the images to one size")
        if self.pixel is None:
            raise Unknown("nothing makes tensors of the images (ToTensor)")
        return Plan(pixel=self.pixel, steps=steps, **self.values)

    # -- geometry ------------------------------------------------------------------------------

    def _random_resized_crop(self, name: str, step: Any) -> None:
        self._one_geometry(name)
        self._filter(name, step)
        self.values["scale"] = arguments.span(step.scale, "RandomResizedCrop's scale")
        self.values["ratio"] = arguments.span(step.ratio, "RandomResizedCrop's ratio")
        self._size("random_resized_crop", step.size)

    def _resize(self, name: str, step: Any) -> None:
        self._one_geometry(name)
        self._filter(name, step)
        if step.max_size is not None:
            raise Unknown("Resize with max_size has no native form")
        size = step.size
        if isinstance(size, (list, tuple)) and len(size) == 1:
            size = size[0]
        if isinstance(size, int):
            self.resize_shorter = arguments.edge(size)
        else:
            self._size("resize", size)

    def _center_crop(self, name: str, step: Any) -> None:
        if self.resize_shorter is None:
            self._one_geometry(name)
            self._size("center_crop", step.size)
            return
        shorter, self.resize_shorter = self.resize_shorter, None
        self._size("resize_center_crop", step.size)
        if max(self.values["out_height"], self.values["out_width"]) > shorter:
            raise Unknown(f"CenterCrop pads what Resize({shorter}) makes")
        self.values["resize_shorter"] = shorter

    def _random_crop(self, name: str, step: Any) -> None:
        shorter, self.resize_shorter = self.resize_shorter, None
        self._one_geometry(name)
        if self.pixel not in (None, "uint8"):
            raise Unknown("RandomCrop after ToTensor has no native form")
        mode = step.padding_mode
        if mode not in ("constant", "edge", "reflect", "symmetric"):
            raise Unknown(f"RandomCrop's padding_mode is {mode!r}")
        v2 = type(step).__module__.startswith("torchvision.transforms.v2.")
        self.values["padding"] = arguments.padding(step.padding, "RandomCrop's padding", v2)
        self.values["pad_if_needed"] = bool(step.pad_if_needed)
        if mode in ("reflect", "symmetric") and step.pad_if_needed:
            raise Unknown(f"RandomCrop with pad_if_needed and {mode} padding has no native form")
        if mode == "reflect" and self.pixel is not None:
            raise Unknown("RandomCrop with reflect padding on tensors may fail: no native form")
        self.values["pad_mode"] = mode
        if mode == "constant":
            self.values["fill"] = arguments.levels(step.fill, "RandomCrop's fill")
        if shorter is None:
            self._size("random_crop", step.size)
            return
        self._size("resize_random_crop", step.size)
        self.values["resize_shorter"] = shorter

    def _one_geometry(self, name: str) -> None:
        if "geometry" in self.values or self.resize_shorter is not None:
            raise Unknown(f"{name} follows another crop or resize")
        if "mean" in self.values or "erase" in self.values:
            raise Unknown(f"{name} after Normalize or RandomErasing has no native form")

    def _filter(self, name: str, step: Any) -> None:
        self.values["filter"] = arguments.resize_filter(step, name, self.pixel is not None)
        if self.pixel not in (None, "uint8"):
            raise Unknown(f"{name} after ToTensor resizes floats, which rounds otherwise")

    def _size(self, geometry: Geometry, size: Any) -> None:
        if not isinstance(size, (list, tuple)) or len(size) != 2:
            raise Unknown(f"a size of {size!r} is not (height, width)")
        self.values["geometry"] = geometry
        self.values["out_height"] = arguments.edge(size[0])
        self.values["out_width"] = arguments.edge(size[1])

    # -- mirrors and colours -------------------------------------------------------------------

    def _after_geometry(self, name: str) -> None:
        if "geometry" not in self.values:
            raise Unknown(f"{name} comes before the images have their final size")
        if "erase" in self.values:
            raise Unknown(f"{name} after RandomErasing would move or colour the rectangle")

    def _flip(self, name: str, step: Any) -> None:
        self._after_geometry(name)
        key = "flip_probability" if name == "RandomHorizontalFlip" else "vertical_flip_probability"
        if key in self.values:
            raise Unknown(f"there are two {name}")
        self.values[key] = arguments.probability(step.p, f"{name}'s p")

    def _jitter(self, name: str, step: Any) -> None:
        if step.hue is not None:
            raise Unknown("ColorJitter with hue has no native form")
        ranges = tuple(
            None
            if (given := getattr(step, key)) is None
            else arguments.span(given, f"ColorJitter's {key}", from_zero=True)
            for key in ("brightness", "contrast", "saturation")
        )
        self._colour(name, Colour("jitter", 1.0, ranges))  # type: ignore[arg-type]

    def _grey(self, name: str, step: Any) -> None:
        if name == "RandomGrayscale":
            p = arguments.probability(step.p, "RandomGrayscale's p")
            self._colour(name, Colour("grey", p))
        elif step.num_output_channels == 3:
            self._colour(name, Colour("grey", 1.0))
        else:
            raise Unknown("Grayscale to one channel has no native form, only to three equal ones")

    def _colour(self, name: str, colour: Colour) -> None:
        self._after_geometry(name)
        if self.pixel not in (None, "uint8"):
            raise Unknown(f"{name} after ToTensor works on floats, which rounds otherwise")
        colours = self.values.get("colours", ())
        if len(colours) == _MAX_COLOURS:
            raise Unknown(f"there are more than {_MAX_COLOURS} colour transforms")
        self.values["colours"] = (*colours, colour)

    # -- tensors -------------------------------------------------------------------------------

    def _to_tensor(self, name: str, _step: Any) -> None:
        if self.pixel is not None:
            raise Unknown(f"{name} gets a tensor already")
        if name == "ToTensor" and torch.get_default_dtype() is not torch.float32:
            raise Unknown(f"{name} gives torch's default dtype, {torch.get_default_dtype()} here")
        self.pixel = "float32" if name == "ToTensor" else "uint8"

    def _to_dtype(self, name: str, step: Any) -> None:
        if self.pixel is None:
            raise Unknown(f"{name} comes before the image is a tensor, where it does nothing")
        if step.dtype is torch.uint8 and self.pixel == "uint8":
            return
        wanted = _FLOATS.get(step.dtype) if isinstance(step.dtype, torch.dtype) else None
        if wanted is None:
            raise Unknown(f"{name} to {step.dtype} has no native form")
        if self.pixel in ("float16", "bfloat16") and wanted != self.pixel:
            raise Unknown(f"{name} to {step.dtype} of what was rounded to {self.pixel} before")
        if self.pixel == "uint8":
            if not getattr(step, "scale", True):  # ConvertImageDtype always scales
                kept = str(step.dtype).removeprefix("torch.")
                raise Unknown(f"{name}({kept}) without scale=True keeps 0..255: no native form")
            self._erased(lambda value, _: value / 255)
        self.pixel = wanted

    def _normalize(self, name: str, step: Any) -> None:
        if self.pixel in (None, "uint8"):
            raise Unknown("Normalize needs float tensors before it (ToTensor)")
        if "mean" in self.values:
            raise Unknown("there are two Normalize")
        mean = self.values["mean"] = arguments.triple(step.mean, "Normalize's mean")
        std = self.values["std"] = arguments.triple(step.std, "Normalize's std")
        if any(s == 0 for s in std):
            raise Unknown("Normalize divides by a std of 0")
        self._erased(lambda value, channel: (value - mean[channel]) / std[channel])

    def _erase(self, name: str, step: Any) -> None:
        if self.pixel is None:
            raise Unknown("RandomErasing needs a tensor before it (ToTensor)")
        if "geometry" not in self.values:
            raise Unknown("RandomErasing comes before the images have their final size")
        if "erase" in self.values:
            raise Unknown("there are two RandomErasing")
        if step.value is None or isinstance(step.value, str):
            raise Unknown("RandomErasing with value='random' has no native form, only numbers")
        given = step.value if isinstance(step.value, (list, tuple)) else [step.value]
        if self.pixel == "uint8":
            arguments.levels(given, "RandomErasing's value")
        scale = arguments.span(step.scale, "RandomErasing's scale", from_zero=True)
        self.values["erase"] = Erase(
            arguments.probability(step.p, "RandomErasing's p"),
            scale,
            arguments.span(step.ratio, "RandomErasing's ratio"),
            arguments.triple(given, "RandomErasing's value"),
        )

    def _erased(self, then: Callable[[float, int], float]) -> None:
        """What a later step makes of the value that was written before it."""
        erase: Erase | None = self.values.get("erase")
        if erase is not None:
            red, green, blue = (then(value, c) for c, value in enumerate(erase.value))
            self.values["erase"] = erase._replace(value=(red, green, blue))
