"""What tests of JPEG decoding share: our pixels, Pillow's, and files of rare kinds."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Iterator

import numpy as np
from PIL import Image

from coordl import _native

FORMS = ("original", "indexed", "packed")


def region(item: bytes, x: int, y: int, width: int, height: int) -> np.ndarray | None:
    """Pixels of a region by the native pass; None where the item is not ours."""
    out = np.full((height, width, 3), 7, np.uint8)
    return out if _native.decode_region(item, x, y, out) else None


def whole(item: bytes) -> np.ndarray | None:
    """All pixels of an item by the native pass; None where it is not ours."""
    size = _native.image_size(item)
    return None if size is None else region(item, 0, 0, *size)


def pillow(item: bytes) -> np.ndarray:
    """libjpeg-turbo's full decode."""
    return np.asarray(Image.open(io.BytesIO(item)).convert("RGB"))


def encoded(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def by_tool(*command: str, given: bytes) -> bytes | None:
    """What cjpeg or jpegtran makes of a file; None where they refuse (an option they lack)."""
    done = subprocess.run(command, input=given, capture_output=True)
    return done.stdout if done.returncode == 0 and done.stdout else None


def portable(image: Image.Image) -> bytes:
    """As PPM or PGM, which cjpeg reads."""
    out = io.BytesIO()
    image.save(out, "PPM")
    return out.getvalue()


def forms_of(item: bytes) -> Iterator[tuple[str, bytes]]:
    """The item in every form it has, the original first."""
    yield "original", item
    for form in FORMS[1:]:
        other = _native.recode(item, form)
        if other is not None:
            assert _native.form(other) == form
            yield form, other


def segments(item: bytes) -> list[tuple[int, int, int]]:
    """(marker, first byte, byte beyond) of the segments before the first scan's data."""
    found, at = [], 2
    while at + 4 <= len(item) and item[at] == 0xFF:
        marker, end = item[at + 1], at + 2 + struct.unpack(">H", item[at + 2 : at + 4])[0]
        found.append((marker, at, end))
        if marker == 0xDA:
            break
        at = end
    return found


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
