"""What was given with an option, read as what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

T = TypeVar("T")


def given(option: str, read: Callable[[str], T], text: str) -> T:
    """`read(text)`; its ValueError is one of the option."""
    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{option}'") from None


def maybe(option: str, read: Callable[[str], T], text: str | None) -> T | None:
    """None where the option was not given."""
    return None if text is None else given(option, read, text)
