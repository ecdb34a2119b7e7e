"""Random draws of a sample from (seed, epoch, index): the twin of native/prep/draws.cpp.

The generator is counter-based: the same key gives the same draw in any process, in any order, on
any machine. Every number here equals the native one exactly; see tests/coordl/prep/test_draws.py.

Source: Philox4x64-10 of Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3",
SC11. The crop follows torchvision's RandomResizedCrop, on these numbers instead of torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from coordl.prep.plan import Plan

Words = tuple[int, int, int, int]

_MASK = (1 << 64) - 1
_DOMAIN = 0x636F6F72646C  # "coordl": second half of every key
_VISION_DRAWS = 1  # counter word that tells uses of the key apart
_CROP_TRIES = 10  # torchvision's, also for erasing
_FLIP_BLOCK = 10  # words: horizontal, vertical
_COLOUR_BLOCK = 16  # one for each colour step
_ERASE_BLOCK = 32  # whether; the tries have the blocks after
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_JITTERED = ("brightness", "contrast", "saturation")
_LN2 = 0.6931471805599453


class Draw(NamedTuple):
    """What chance chose for one sample.

    Attributes:
        x, y, width, height: the box in pixels of the source image, or with resize_random_crop of
            the resized one; that of a padded crop may lie outside of it.
        colours: (brightness | contrast | saturation | grey, factor) in the order of application.
        erase: (x, y, width, height) in the finished sample; width or height 0: nothing.
    """

    x: int
    y: int
    width: int
    height: int
    flip: bool = False
    vertical_flip: bool = False
    colours: tuple[tuple[str, float], ...] = ()
    erase: tuple[int, int, int, int] = (0, 0, 0, 0)


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four 64-bit words that depend on counter and key only."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a = c0 * 0xD2E7470EE14C6C93
        b = c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = (b >> 64) ^ c1 ^ k0, b & _MASK, (a >> 64) ^ c3 ^ k1, a & _MASK
        k0 = (k0 + 0x9E3779B97F4A7C15) & _MASK
        k1 = (k1 + 0xBB67AE8584CAA73B) & _MASK
    return c0, c1, c2, c3


def choose_draw(plan: Plan, width: int, height: int, seed: int, epoch: int, index: int) -> Draw:
    """Draw of sample `index` in `epoch` on an image of width x height pixels.

    Args:
        plan: its geometry, flips, colours and erasing decide.
        seed, epoch, index: each in [0, 2**64).
    """

    def block(number: int) -> Words:
        return philox((number, _VISION_DRAWS, epoch, index), (seed, _DOMAIN))

    x, y, crop_width, crop_height = 0, 0, width, height
    if plan.geometry == "random_resized_crop":
        x, y, crop_width, crop_height = _random_crop(plan, width, height, block)
    elif plan.geometry == "random_crop":
        x, y, crop_width, crop_height = _padded_crop(plan, width, height, block)
    elif plan.geometry == "resize_random_crop":
        resized = shorter_edge_size(plan.resize_shorter, width, height)
        x, y, crop_width, crop_height = _padded_crop(plan, *resized, block)
    elif plan.geometry == "center_crop":
        crop_width, crop_height = plan.out_width, plan.out_height
        x, y = center_offset(width, crop_width), center_offset(height, crop_height)
    flips = (plan.flip_probability, plan.vertical_flip_probability)
    bits = block(_FLIP_BLOCK) if any(flips) else (0, 0, 0, 0)
    flip, vertical_flip = (p > 0 and _unit(b) < p for p, b in zip(flips, bits, strict=False))
    colours, erase = _colours(plan, block), _erase(plan, block)
    return Draw(x, y, crop_width, crop_height, flip, vertical_flip, colours, erase)


def center_offset(size: int, crop: int) -> int:
    """Where torchvision's CenterCrop begins; Python rounds halves to even."""
    return round((size - crop) / 2.0)


def shorter_edge_size(shorter: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) after torchvision's Resize(shorter)."""
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _random_crop(
    plan: Plan, width: int, height: int, block: Callable[[int], Words]
) -> tuple[int, int, int, int]:
    area = float(width) * height
    log_low, log_high = _log(plan.ratio[0]), _log(plan.ratio[1])
    for attempt in range(_CROP_TRIES):
        bits = block(attempt)
        share = plan.scale[0] + _unit(bits[0]) * (plan.scale[1] - plan.scale[0])
        ratio = _exp(log_low + _unit(bits[1]) * (log_high - log_low))
        target = area * share
        crop_width = round(math.sqrt(target * ratio))
        crop_height = round(math.sqrt(target / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            y = _below(bits[2], height - crop_height + 1)
            x = _below(bits[3], width - crop_width + 1)
            return x, y, crop_width, crop_height
    return _central_crop(plan.ratio, width, height)


def _central_crop(ratio: tuple[float, float], width: int, height: int) -> tuple[int, int, int, int]:
    crop_width, crop_height = width, height
    if width / height < ratio[0]:
        crop_height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        crop_width = max(1, round(height * ratio[1]))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def _padded_crop(
    plan: Plan, width: int, height: int, block: Callable[[int], Words]
) -> tuple[int, int, int, int]:
    left, top, right, bottom = plan.padding
    padded_width, padded_height = width + left + right, height + top + bottom
    more_width = more_height = 0
    if plan.pad_if_needed:
        more_width = max(0, plan.out_width - padded_width)
        more_height = max(0, plan.out_height - padded_height)
    rows = padded_height + 2 * more_height - plan.out_height + 1
    columns = padded_width + 2 * more_width - plan.out_width + 1
    bits = block(0)
    y = _below(bits[2], max(1, rows)) - top - more_height
    x = _below(bits[3], max(1, columns)) - left - more_width
    return x, y, plan.out_width, plan.out_height


def _colours(plan: Plan, block: Callable[[int], Words]) -> tuple[tuple[str, float], ...]:
    ops: list[tuple[str, float]] = []
    for number, step in enumerate(plan.colours):
        bits = block(_COLOUR_BLOCK + number)
        if step.kind == "grey":
            ops += [("grey", 0.0)] if _unit(bits[0]) < step.probability else []
            continue
        for which in _ORDERS[_below(bits[0], 6)]:
            span = step.ranges[which]
            if span is not None:
                factor = span[0] + _unit(bits[1 + which]) * (span[1] - span[0])
                ops.append((_JITTERED[which], factor))
    return tuple(ops)


def _erase(plan: Plan, block: Callable[[int], Words]) -> tuple[int, int, int, int]:
    erase, out_width, out_height = plan.erase, plan.out_width, plan.out_height
    if erase is None or not _unit(block(_ERASE_BLOCK)[0]) < erase.probability:
        return 0, 0, 0, 0
    area = float(out_width) * out_height
    log_low, log_high = _log(erase.ratio[0]), _log(erase.ratio[1])
    for attempt in range(_CROP_TRIES):
        bits = block(_ERASE_BLOCK + 1 + attempt)
        share = erase.scale[0] + _unit(bits[0]) * (erase.scale[1] - erase.scale[0])
        ratio = _exp(log_low + _unit(bits[1]) * (log_high - log_low))
        target = area * share
        height = round(math.sqrt(target * ratio))
        width = round(math.sqrt(target / ratio))
        if height < out_height and width < out_width:
            y = _below(bits[2], out_height - height + 1)
            x = _below(bits[3], out_width - width + 1)
            return x, y, width, height
    return 0, 0, 0, 0


def _unit(bits: int) -> float:
    return float(bits >> 11) * 2.0**-53


def _below(bits: int, n: int) -> int:
    return (bits * n) >> 64


# log and exp of the C library differ in the last bit between machines, and one bit can move a crop
# by a pixel: these use only operations that IEEE 754 rounds exactly, in the native twin's order.


def _log(x: float) -> float:
    mantissa, exponent = math.frexp(x)
    if mantissa < 0.7071067811865476:
        mantissa *= 2
        exponent -= 1
    s = (mantissa - 1) / (mantissa + 1)
    square = s * s
    series = 0.0
    for k in range(25, 0, -2):
        series = series * square + 1.0 / k
    return 2 * s * series + exponent * _LN2


def _exp(x: float) -> float:
    power = math.floor(x / _LN2 + 0.5)
    rest = x - power * _LN2
    series = 1.0
    for n in range(18, 0, -1):
        series = series * rest / n + 1
    return math.ldexp(series, power)
