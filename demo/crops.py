"""One photograph -> many pictures with the statistics of a public data set's files.

`IMAGENET`: 300-600 px a side, 50-120 KB. `OPENIMAGES`: 1024 px on the longer side, 270 KB on
average. In both a fifth are portrait; mostly 4:2:0, with 4 % 4:4:4, 1.5 % grey and 1 % progressive.
Every draw comes from (version, photograph, index), so the same photograph gives the same pictures
on every machine that has the same Pillow and libjpeg-turbo.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

# How many bytes a photograph takes at each quality, relative to the one tried first.
_PROBE_QUALITY = 94
_RELATIVE_BYTES = {90: 0.77, 91: 0.82, 92: 0.87, 93: 0.93, 94: 1.0, 95: 1.10, 96: 1.26, 97: 1.48}
# A light sharpening, as cameras and photo sites apply after downscaling.
_SHARPEN = ImageFilter.Kernel((3, 3), (-1, -2, -1, -2, 28, -2, -1, -2, -1), scale=16)
_CELL = 8  # source pixels a side of one cell of the detail map


@dataclass(frozen=True)
class Statistics:
    """Sides (px) and file sizes (bytes) of the pictures of one data set.

    A triple is mean, deviation, and then the bounds; pictures come out of `bytes_low` to
    `bytes_high` save for the few whose every box is too smooth or too busy.
    """

    long_px: tuple[float, float, float, float]  # mean, deviation, least, most
    short_least_px: int
    ratios: tuple[float, ...]  # longer side / shorter side, equally likely
    target_bytes: tuple[float, float, float, float]
    bytes_low: int
    bytes_high: int
    source_least_px: int  # shorter side of a photograph that is large enough to cut from


IMAGENET = Statistics(
    long_px=(500, 35, 400, 600),
    short_least_px=300,
    ratios=(1.2, 1.33, 1.33, 1.33, 1.5, 1.5),
    target_bytes=(95_000, 18_000, 60_000, 118_000),
    bytes_low=55_000,
    bytes_high=120_000,
    source_least_px=0,
)
OPENIMAGES = Statistics(
    long_px=(1024, 0, 1024, 1024),
    short_least_px=680,
    ratios=(1.33, 1.33, 1.33, 1.5),
    target_bytes=(282_000, 60_000, 160_000, 420_000),
    bytes_low=140_000,
    bytes_high=440_000,
    source_least_px=1024,
)


@dataclass(frozen=True)
class Order:
    """Pictures to cut from one photograph: `train` for one folder, `val` more for the other."""

    name: str
    file: Path
    train: int
    val: int
    version: str
    statistics: Statistics = IMAGENET


class _DetailMap:
    """Mean gradient of any box of a photograph in constant time, by an integral image."""

    def __init__(self, image: Image.Image) -> None:
        small = image.convert("L").reduce(_CELL) if min(image.size) > 64 else image.convert("L")
        grey = np.asarray(small, dtype=np.float32)
        slope = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
        self.scale = image.width / small.width
        self.sums = np.pad(slope, ((1, 0), (1, 0))).cumsum(0).cumsum(1)

    def __call__(self, box: tuple[int, int, int, int]) -> float:
        limit_y, limit_x = self.sums.shape[0] - 1, self.sums.shape[1] - 1
        x0, x1 = (min(round(v / self.scale), limit_x) for v in (box[0], box[2]))
        y0, y1 = (min(round(v / self.scale), limit_y) for v in (box[1], box[3]))
        total = self.sums[y1, x1] - self.sums[y0, x1] - self.sums[y1, x0] + self.sums[y0, x0]
        return float(total) / max(1, (y1 - y0) * (x1 - x0))


def _draw(rng: random.Random, of: tuple[float, float, float, float]) -> int:
    mean, deviation, least, most = of
    return round(min(most, max(least, rng.gauss(mean, deviation))))


def _picture_size(rng: random.Random, statistics: Statistics) -> tuple[int, int]:
    long = _draw(rng, statistics.long_px)
    short = round(max(statistics.short_least_px, long / rng.choice(statistics.ratios)))
    return (short, long) if rng.random() < 0.21 else (long, short)


def _crop(
    image: Image.Image, detail: _DetailMap, rng: random.Random, statistics: Statistics
) -> Image.Image:
    """A box at 1-4x, the one with most detail of a few, resized to the picture's size."""
    width, height = _picture_size(rng, statistics)
    width, height = min(width, image.width), min(height, image.height)
    scale_most = min(4.0, image.width / width, image.height / height)
    scale = math.exp(rng.uniform(0.0, math.log(scale_most)))
    box_width, box_height = int(width * scale), int(height * scale)
    boxes = []
    for _ in range(6):
        x = rng.randint(0, image.width - box_width)
        y = rng.randint(0, image.height - box_height)
        boxes.append((x, y, x + box_width, y + box_height))
    box = max(boxes, key=detail)
    picture = image.resize((width, height), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    return picture.filter(_SHARPEN)


def _encode(picture: Image.Image, target_bytes: int, rng: random.Random) -> bytes:
    """JPEG bytes at about the highest quality of 90-97 that stays within the target."""
    kind = rng.random()
    if kind < 0.015:
        picture = picture.convert("L")
    options = {"subsampling": 0 if 0.015 <= kind < 0.055 else 2, "progressive": kind >= 0.99}

    def at(quality: int) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, **options)
        return buffer.getvalue()

    first = at(_PROBE_QUALITY)
    room = target_bytes / len(first)
    fitting = [quality for quality, ratio in _RELATIVE_BYTES.items() if ratio <= room]
    quality = max(fitting, default=min(_RELATIVE_BYTES))
    return first if quality == _PROBE_QUALITY else at(quality)


def _picture(
    image: Image.Image, detail: _DetailMap, rng: random.Random, statistics: Statistics
) -> bytes:
    """One picture; a box too smooth or too busy for its size is drawn again a few times."""
    target = _draw(rng, statistics.target_bytes)
    nearest, distance = b"", math.inf
    for _ in range(8):
        encoded = _encode(_crop(image, detail, rng, statistics), target, rng)
        off = max(statistics.bytes_low - len(encoded), len(encoded) - statistics.bytes_high, 0)
        if off < distance:
            nearest, distance = encoded, off
        if not off:
            break
    return nearest


def large_enough(file: Path, statistics: Statistics) -> bool:
    """Whether a photograph has the pixels for pictures of these statistics."""
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(file) as opened:
        return min(opened.size) >= statistics.source_least_px


def weight(file: Path) -> float:
    """How many pictures a photograph is good for, relative to others: its size and its detail."""
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(file) as opened:
        pixels = opened.width * opened.height
        opened.draft("L", (640, 640))  # JPEG: decoded at an eighth of its size, in milliseconds
        small = opened.convert("L")
    small.thumbnail((640, 640))
    grey = np.asarray(small, dtype=np.float32)
    slope = float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
    return math.sqrt(min(pixels, 9_000_000)) * min(max(slope, 4.0), 16.0)


def cut(order: Order, out: Path) -> list[int]:
    """Writes the pictures of one photograph and returns their sizes in bytes.

    Files: `out/train/<name>/<name>_0000.jpg`, ... and `out/val/<name>/...`; the folders are made.

    Raises:
        OSError: the photograph cannot be read or a picture not be written.
    """
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(order.file) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    detail = _DetailMap(image)
    sizes = []
    for index in range(order.train + order.val):
        rng = random.Random(f"{order.version}/{order.name}/{index}")
        part = "train" if index < order.train else "val"
        folder = out / part / order.name
        folder.mkdir(parents=True, exist_ok=True)
        encoded = _picture(image, detail, rng, order.statistics)
        (folder / f"{order.name}_{index:04d}.jpg").write_bytes(encoded)
        sizes.append(len(encoded))
    return sizes
