"""Every test has arenas of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _arenas(arenas: Path) -> None:
    """Empty again afterwards."""
