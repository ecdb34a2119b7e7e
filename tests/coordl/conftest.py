"""Photographs re-encoded in every way a data set may hold."""

from __future__ import annotations

import gc
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coordl import _native

ENCODINGS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": "4:2:0"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:4:4": {"subsampling": "4:4:4"},
    "progressive 4:2:0": {"subsampling": "4:2:0", "progressive": True},
    "progressive 4:4:4": {"subsampling": "4:4:4", "progressive": True},
    "restart markers": {"subsampling": "4:2:0", "restart_marker_blocks": 5},
    "rgb": {"keep_rgb": True},
    "grey": {"mode": "L"},
    "grey progressive": {"mode": "L", "progressive": True},
    "low quality": {"quality": 20},
}


@pytest.fixture
def arenas(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A directory of arenas of its own; empty again after the test."""
    home = tmp_path_factory.mktemp("arenas")
    monkeypatch.setenv("COORDL_SHM_DIR", str(home))
    yield home
    gc.collect()
    _native.reap_arenas()
    assert [f.name for f in home.rglob("*") if f.is_file() and not f.name.endswith(".lock")] == []


@pytest.fixture
def reads_ended() -> Iterator[None]:
    """After the test: waits for what was read ahead for a minibatch that failed meanwhile."""
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("coordl-ahead"):
            thread.join(timeout=60)
            assert not thread.is_alive(), "it should end with the loader"


@pytest.fixture
def class_folder(tmp_path: Path, photos: list[Path]) -> Callable[..., Path]:
    """class_folder(count, classes=2) -> an image folder of that many photographs: copies of the
    four."""

    def make(count: int, classes: int = 2) -> Path:
        root = tmp_path / "pictures"
        for number in range(count):
            home = root / f"class{number % classes}"
            home.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photos[number % len(photos)], home / f"{number:03}.jpg")
        return root

    return make


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """encode(photo, encoding, size=None) -> JPEG bytes of the photograph, cut to `size`."""

    def encode(photo: Path, encoding: str, size: tuple[int, int] | None = None) -> bytes:
        options = dict(ENCODINGS[encoding])
        image = Image.open(photo).convert(options.pop("mode", "RGB"))
        if size is not None:
            image = image.crop((40, 30, 40 + size[0], 30 + size[1]))
        out = io.BytesIO()
        image.save(out, "JPEG", **{"quality": 90, **options})
        return out.getvalue()

    return encode


@pytest.fixture
def mixed_folder(tmp_path: Path, photos: list[Path], encode: Callable[..., bytes]) -> Path:
    """An image folder with every encoding, other formats, damaged files and odd names: 18 files."""
    root = tmp_path / "mixed"
    for name in ("a", "b/deeper", "zü"):
        (root / name).mkdir(parents=True)
    for number, encoding in enumerate(ENCODINGS):
        photo = photos[number % len(photos)]
        (root / "a" / f"{encoding.replace(':', '')}.jpg").write_bytes(encode(photo, encoding))
    for number, photo in enumerate(photos):
        (root / "b" / "deeper" / f"größe {number}.jpg").write_bytes(photo.read_bytes())
    with Image.open(photos[0]) as picture:
        picture.crop((0, 0, 64, 48)).save(root / "b" / "other.png")
        picture.convert("CMYK").crop((0, 0, 64, 48)).save(root / "b" / "cmyk.jpg", "JPEG")
    Path(os.fsdecode(os.fsencode(root / "zü") + b"/\xff\xfe.jpg")).write_bytes(
        photos[1].read_bytes()
    )
    photo = photos[2].read_bytes()
    (root / "zü" / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    return root
