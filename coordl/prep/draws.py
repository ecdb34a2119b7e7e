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
_CROP_TRIES = 10  # torchvision's; the flip has the block after
_LN2 = 0.6931471805599453


class Draw(NamedTuple):
    """What chance chose for one sample; the box in pixels of the source image."""

    x: int
    y: int
    width: int
    height: int
    flip: bool


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
        plan: its geometry and flip probability decide.
        seed, epoch, index: each in [0, 2**64).
    """

    def block(number: int) -> Words:
        return philox((number, _VISION_DRAWS, epoch, index), (seed, _DOMAIN))

    x, y, crop_width, crop_height = 0, 0, width, height
    if plan.geometry == "random_resized_crop":
        x, y, crop_width, crop_height = _random_crop(plan, width, height, block)
    elif plan.geometry == "center_crop":
        crop_width, crop_height = plan.out_width, plan.out_height
        x, y = center_offset(width, crop_width), center_offset(height, crop_height)
    flip = plan.flip_probability > 0 and _unit(block(_CROP_TRIES)[0]) < plan.flip_probability
    return Draw(x, y, crop_width, crop_height, flip)


def center_offset(size: int, crop: int) -> int:
    """Where torchvision's CenterCrop begins; Python rounds halves to even."""
    return round((size - crop) / 2.0)


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
