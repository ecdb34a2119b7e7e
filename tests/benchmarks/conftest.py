from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def photo_folder(tmp_path, photos):
    """Eight pictures in two classes."""
    for number in range(8):
        place = tmp_path / "photos" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos[number % len(photos)], place / f"{number}.jpg")
    return tmp_path / "photos"
