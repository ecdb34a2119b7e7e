"""A loader seen otherwise: a shallow copy for ourselves, whatever copying means to its class."""

from __future__ import annotations

from typing import Any


def view_of(thing: Any, **others: Any) -> Any:
    """It, with other attributes; what it refers to is shared."""
    made = object.__new__(type(thing))
    made.__dict__.update({**vars(thing), **others})
    return made
