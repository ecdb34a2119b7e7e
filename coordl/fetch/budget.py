"""How much a cache may hold: bytes, "2GiB", "65%" of the data set, or "auto": what is there."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, SupportsIndex

from coordl import _native
from coordl.errors import CacheError

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[f"{_letter}b"] = 1000**_power
    _UNITS[f"{_letter}ib"] = 1024**_power

AUTO = "auto"
# Of what may be had: the job itself, its workers and its files' page cache need memory too.
_AUTO_SHARE = Fraction(3, 4)
_LEAVES = {
    "shm": "what is free in the shared-memory directory",
    "cgroup": "what the memory control group leaves",
    "memory": "the machine's available memory",
}

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*|%)\s*")


def parse_budget(budget: SupportsIndex | str, dataset_bytes: int | None = None) -> int:
    """The budget in bytes, rounded down.

    Args:
        budget: bytes; or text: "500MB" (10**6), "2GiB" (2**30), "1.5 TiB", "65%" of the encoded
            bytes of the data set, at most 200% (items may be held in a larger form), or "auto",
            see auto_budget().
        dataset_bytes: encoded bytes of the data set; needed for a percentage.

    Raises:
        ValueError: it is not one of these, or is no byte at all.
        TypeError: neither a whole number nor text.
        CacheError: "auto", where nothing says how much memory there is.
    """
    if is_auto(budget):
        return auto_budget(_native.memory_limits())[0]
    if isinstance(budget, bool):
        raise TypeError(f"cache={budget!r}: give bytes (int) or text such as '2GiB' or '65%'")
    if not isinstance(budget, str):
        try:
            size = operator.index(budget)
        except TypeError:
            raise TypeError(
                f"cache={budget!r}: give bytes (int) or text such as '2GiB' or '65%'"
            ) from None
        return _positive(size, budget)
    known = "" if dataset_bytes is None else ", or '65%' of the data set"
    number, unit = _number_and_unit(budget)
    if unit != "%":
        if unit not in _UNITS:
            raise ValueError(
                f"cache={budget!r} is no size; write bytes, '500MB', '2GiB' or 'auto'{known}"
            )
        return _positive(int(number * _UNITS[unit]), budget)
    if number > 200:
        raise ValueError(
            f"cache={budget!r}: 100% holds all files as they are, some 140% all of them packed; "
            "more than 200% is never used"
        )
    if dataset_bytes is None:
        raise ValueError(
            f"cache={budget!r} needs the data set's encoded bytes, which are not known here; "
            "write the size in bytes, as '2GiB'"
        )
    return _positive(int(number * dataset_bytes / 100), budget)


def parse_size(text: str) -> int:
    """Bytes of "256MiB", rounded down. Raises ValueError where it is no size of its own."""
    number, unit = _number_and_unit(text)
    if unit not in _UNITS:
        raise ValueError(f"{text!r} is no size; write bytes, '500MB' or '2GiB'")
    return int(number * _UNITS[unit])


def _number_and_unit(text: str) -> tuple[Fraction, str]:
    """Of "1.5 GiB": 3/2, "gib"; the unit "?" where it is nothing of the kind."""
    match = _SIZE.fullmatch(text)
    return (Fraction(match[1]), match[2].lower()) if match else (Fraction(0), "?")


def is_auto(budget: object) -> bool:
    return isinstance(budget, str) and budget.strip().lower() == AUTO


def auto_budget(limits: Mapping[str, Any]) -> tuple[int, str]:
    """Three quarters of what an arena may take here and now, and of what that is, for reading.

    What it may take leaves headroom in the tmpfs, in every memory control group above the process
    and on the machine (docs/shared-memory.md); the scarcest of them decides.

    Args:
        limits: as `_native.memory_limits()` gives them.

    Raises:
        CacheError: none of the limits can be read.
    """
    if limits["allowed_bytes"] is None:
        raise CacheError(
            "cache='auto' finds no limit of memory to go by here; write the size, as '20GiB'"
        )
    size = int(limits["allowed_bytes"] * _AUTO_SHARE)
    return max(1, size), f"three quarters of {_LEAVES[limits['limit']]}, less headroom"


def _positive(size: int, budget: object) -> int:
    if size < 1:
        raise ValueError(f"cache={budget!r} is {size} bytes; a cache needs at least one")
    return size


def format_bytes(size: float) -> str:
    """1536 -> "1.5 KiB"; at most three digits and a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
