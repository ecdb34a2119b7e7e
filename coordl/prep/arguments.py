"""The arguments of transforms: what the native pass can take, or Unknown with the reason."""

from __future__ import annotations

import math
from typing import Any

from coordl.prep.known import Unknown
from coordl.prep.recipe import Filter, Range, Triple

MAX_EDGE = 16384

_FILTERS: dict[Any, Filter] = {
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "nearest": "nearest",
    "nearest-exact": "nearest",  # on Pillow images the same
    0: "nearest",  # Pillow's numbers
    2: "bilinear",
    3: "bicubic",
}


def edge(value: Any) -> int:
    """A size in pixels."""
    if not isinstance(value, int) or not 1 <= value <= MAX_EDGE:
        raise Unknown(f"an edge of {value!r} px is not an int in 1..{MAX_EDGE}")
    return value


def number(value: Any, what: str) -> float:
    """A finite number."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise Unknown(f"{what} is {value!r}, not a number") from None
    if not math.isfinite(result):
        raise Unknown(f"{what} is {result}")
    return result


def probability(value: Any, what: str) -> float:
    """A number in [0, 1]."""
    p = number(value, what)
    if not 0 <= p <= 1:
        raise Unknown(f"{what} is {p}")
    return p


def span(pair: Any, what: str, from_zero: bool = False) -> Range:
    """(low, high), low above 0 or at least 0."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise Unknown(f"{what} is {pair!r}, not (low, high)")
    low, high = number(pair[0], what), number(pair[1], what)
    if not (low >= 0 if from_zero else low > 1e-9) or not low <= high < 1e9:
        least = "at least" if from_zero else "above"
        raise Unknown(f"{what} is ({low:g}, {high:g}): low must be {least} 0 and at most high")
    return low, high


def triple(values: Any, what: str) -> Triple:
    """One number for each channel; one serves all, as in torch."""
    try:
        numbers = [number(value, what) for value in values]
    except TypeError:
        raise Unknown(f"{what} is {values!r}, not three numbers") from None
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise Unknown(f"{what} has {len(numbers)} channels, pictures have 3")
    return numbers[0], numbers[1], numbers[2]


def levels(value: Any, what: str) -> tuple[int, int, int]:
    """A colour: one level or three, 0..255."""
    values = value if isinstance(value, (list, tuple)) else [0 if value is None else value]
    numbers = [int(level) if isinstance(level, (int, float)) else -1 for level in values]
    if any(not 0 <= n <= 255 or n != v for n, v in zip(numbers, values, strict=True)):
        raise Unknown(f"{what} is {value!r}, not one or three levels in 0..255")
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise Unknown(f"{what} has {len(numbers)} channels, pictures have 3")
    return numbers[0], numbers[1], numbers[2]


def padding(value: Any, what: str, v2: bool) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a RandomCrop's `padding`, as its library keeps it."""
    if value is None:
        return 0, 0, 0, 0
    pads = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(pad, int) and 0 <= pad <= MAX_EDGE for pad in pads):
        raise Unknown(f"{what} is {value!r}, not numbers of pixels in 0..{MAX_EDGE}")
    if len(pads) == 1:
        return pads[0], pads[0], pads[0], pads[0]
    if len(pads) == 2:
        return pads[0], pads[1], pads[0], pads[1]
    if len(pads) != 4:
        raise Unknown(f"{what} has {len(pads)} numbers, not 1, 2 or 4")
    if v2:  # kept as left, right, top, bottom
        return pads[0], pads[2], pads[1], pads[3]
    return pads[0], pads[1], pads[2], pads[3]


def resize_filter(step: Any, name: str, on_tensor: bool) -> Filter:
    """The filter of a Resize or RandomResizedCrop."""
    kind = getattr(step.interpolation, "value", step.interpolation)
    known = _FILTERS.get(kind)
    if known is None:
        raise Unknown(
            f"{name} with {kind} interpolation has no native form, only bilinear, bicubic, nearest"
        )
    if on_tensor and known != "bilinear":
        raise Unknown(
            f"{name} with {kind} interpolation gives other pixels for tensors than for Pillow "
            "images: put it before the image is a tensor"
        )
    if known != "nearest" and step.antialias is not True:
        raise Unknown(f"{name} without antialias=True has no native form")
    return known
