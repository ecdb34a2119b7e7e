"""Which items a cache takes: first come, or a random subset that every process knows by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POLICIES = ("first", "random")


def check_policy(admission: str) -> None:
    """Raises ValueError unless it is one of POLICIES."""
    if admission not in POLICIES:
        known = ", ".join(repr(each) for each in POLICIES)
        raise ValueError(f"admission={admission!r} is unknown: use {known}")


def check_first_come(admission: str, where: str) -> None:
    """Raises ValueError where a random subset is asked of what is not known beforehand."""
    if admission == "random":
        raise ValueError(
            f'admission="random" chooses among the items of a data set, which {where} does not '
            'know beforehand: use admission="first"'
        )


def admission_limit(numbers: NDArray[np.uint64], sizes: NDArray[np.int64], budget: int) -> int:
    """The largest limit such that all items with a number up to it fit the budget together.

    Args:
        numbers: (N,) random numbers of the items, _native.admission_numbers().
        sizes: (N,) bytes of the items.
        budget: bytes.
    """
    order = np.argsort(numbers, kind="stable")
    fitting = int(np.searchsorted(np.cumsum(sizes[order]), budget, side="right"))
    if fitting == len(numbers):
        return 2**64 - 1
    return int(numbers[order[fitting - 1]]) if fitting else 0
