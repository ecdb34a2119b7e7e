"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Real photographs as JPEG files, smallest side 300 px; licences in tests/data/LICENSES.md."""
    return sorted(DATA.glob("*.jpg"))
