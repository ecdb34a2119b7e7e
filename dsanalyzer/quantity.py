"""Quantities as people write them on a command line: 65%, 15MB/s, 2x."""

from __future__ import annotations

import math
import re

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_UNITS |= {"ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40}
# Sequential read rates people mean by these names.
STORAGE_CLASSES = {"hdd": 150e6, "sata-ssd": 530e6, "nvme": 3.5e9}


def fraction(text: str) -> float:
    """`65%` or `0.65` -> 0.65.

    Raises:
        ValueError: not a share between 0 and 1.
    """
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a share; write 65% or 0.65") from None
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is not between 0% and 100%")
    return value


def bytes_per_s(text: str) -> float:
    """`15MB/s`, `500 MiB`, `nvme` -> bytes per second.

    Raises:
        ValueError: not a rate.
    """
    if text.lower() in STORAGE_CLASSES:
        return STORAGE_CLASSES[text.lower()]
    match = re.fullmatch(r"([0-9.]+)\s*([kmgt]?i?)b?(?:/s)?", text.strip(), re.IGNORECASE)
    try:
        value = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    except (ValueError, KeyError):
        value = 0.0
    if value <= 0:
        raise ValueError(
            f"{text!r} is not a storage rate; write 15MB/s, 500MiB/s or one of "
            f"{', '.join(STORAGE_CLASSES)}"
        )
    return value


def counts(text: str) -> tuple[int, ...]:
    """`1,2,4` -> (1, 2, 4); nothing -> ().

    Raises:
        ValueError: no numbers.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise ValueError(f"{text!r} are no numbers; write 1,2,4,8") from None


def network_bytes_per_s(text: str) -> float:
    """`10Gbit/s` -> 1.25e9; otherwise as bytes_per_s.

    Raises:
        ValueError: not a rate.
    """
    match = re.fullmatch(r"([0-9.]+)\s*([kmgt])bit/?s?", text.strip(), re.IGNORECASE)
    try:
        value = float(match[1]) * _UNITS[match[2].lower()] / 8 if match else bytes_per_s(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ValueError(f"{text!r} is not a network rate; write 10Gbit/s or 1.2GB/s")
    return value


def duration_s(text: str) -> float:
    """`3m`, `90s`, `1h`, `90` -> seconds.

    Raises:
        ValueError: not a positive time.
    """
    match = re.fullmatch(r"([0-9.]+)\s*([smh]?)", text.strip().lower())
    try:
        value = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ValueError(f"{text!r} is not a time; write 3m, 90s or 1h")
    return value


def factor(text: str) -> float:
    """`2x` or `2` -> 2.0.

    Raises:
        ValueError: not a positive number.
    """
    try:
        value = float(text.lower().removesuffix("x").removesuffix("×"))
    except ValueError:
        value = 0.0
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{text!r} is not a factor; write 2x")
    return value
