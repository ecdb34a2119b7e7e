"""What the tests of decoders share: our pixels, Pillow's, and that ours are Pillow's or none."""

from __future__ import annotations

import io
import random
import warnings

import numpy as np
from PIL import Image

from coordl import _native


def region(item: bytes, x: int, y: int, width: int, height: int) -> np.ndarray | None:
    out = np.full((height, width, 3), 7, np.uint8)
    return out if _native.decode_region(item, x, y, out) else None


def pillow(item: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(item)).convert("RGB"))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def assert_regions_equal(item: bytes, count: int, seed: int) -> None:
    full = pillow(item)
    height, width = full.shape[:2]
    assert _native.image_size(item) == (width, height)
    whole = region(item, 0, 0, width, height)
    assert whole is not None and np.array_equal(whole, full)
    chance = random.Random(seed)
    for _ in range(count):
        w, h = chance.randint(1, width), chance.randint(1, height)
        x, y = chance.randint(0, width - w), chance.randint(0, height - h)
        ours = region(item, x, y, w, h)
        assert ours is not None
        wrong = int((ours != full[y : y + h, x : x + w]).any(axis=2).sum())
        assert wrong == 0, f"{wrong} of {w * h} pixels differ in {(x, y, w, h)} of {full.shape}"


def taken_and_equal(item: bytes, chance: random.Random) -> bool:
    """Whether a region of a damaged item is ours; if so, Pillow decodes it to the same pixels."""
    size = _native.image_size(item)
    if size is None or size[0] * size[1] > 1_000_000:
        return False
    w, h = chance.randint(1, size[0]), chance.randint(1, size[1])
    x, y = chance.randint(0, size[0] - w), chance.randint(0, size[1] - h)
    ours = region(item, x, y, w, h)
    if ours is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full = pillow(item)
    assert np.array_equal(ours, full[y : y + h, x : x + w])
    return True
