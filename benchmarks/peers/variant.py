"""What a variant is: JPEG bytes and boxes in, float32 (3, 224, 224) out."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from .boxes import Box

SIZE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# level * GAIN[c] + BIAS[c] is the normalised value.
GAIN = np.array([1 / (255 * s) for s in STD], np.float32)
BIAS = np.array([-m / s for m, s in zip(MEAN, STD, strict=True)], np.float32)


class LeftOut(Exception):
    """This variant cannot run here; says why."""


@dataclass(frozen=True)
class Picture:
    """One encoded photograph and its size in px."""

    item: bytes
    width: int
    height: int


def load_pictures(paths: list[str]) -> list[Picture]:
    """The files' bytes and sizes, in that order."""
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            width, height = image.size
        pictures.append(Picture(Path(path).read_bytes(), width, height))
    return pictures


class Variant:
    """One way to prepare samples; made once per process, used by one thread.

    `one` may return the same memory every time, as a loader with reused minibatches would.
    """

    clock: ClassVar[str] = "thread"  # "process" where the library uses threads of its own
    same_boxes: bool = True  # False: it draws its own, from the same distribution
    antialias: ClassVar[bool] = True  # the resize averages every source pixel on downscales
    settings: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ()  # distributions whose versions matter

    def __init__(self, pictures: list[Picture]) -> None:
        self.pictures = pictures

    def one(self, index: int, box: Box) -> np.ndarray:
        """(3, 224, 224) float32, normalised; valid until the next call."""
        raise LeftOut(f"{type(self).__name__} makes whole minibatches, not single samples")

    def round(self, boxes: list[Box]) -> None:
        """Prepares every picture once; what is timed."""
        one = self.one
        for index, box in enumerate(boxes):
            one(index, box)

    def results(self, boxes: list[Box]) -> Iterator[np.ndarray]:
        """What `round` makes of the first len(boxes) pictures, for the comparison with Pillow."""
        for index, box in enumerate(boxes):
            yield self.one(index, box)

    def facts(self) -> dict[str, Any]:
        """More to report: bytes_ratio (bytes held / bytes of the JPEGs), kernels, ..."""
        return {}

    def versions(self) -> dict[str, str]:
        """Versions of the packages that do the work."""
        return {name: importlib.metadata.version(name) for name in self.packages}


class IntoBatch(Variant):
    """A variant that writes its samples into one reused float32 buffer, on a cache line."""

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        memory = np.zeros(3 * SIZE * SIZE + 16, np.float32)
        first = -memory.ctypes.data // 4 % 16
        self.out = memory[first : first + 3 * SIZE * SIZE].reshape(3, SIZE, SIZE)

    def normalise(self, levels: np.ndarray, flip: bool, bgr: bool = False) -> np.ndarray:
        """(224, 224, 3) uint8 levels into `out`, plane by plane, mirrored where asked."""
        if flip:
            levels = levels[:, ::-1]
        for channel in range(3):
            plane = levels[:, :, 2 - channel if bgr else channel]
            np.multiply(plane, GAIN[channel], out=self.out[channel], casting="unsafe")
            self.out[channel] += BIAS[channel]
        return self.out


def levels(sample: np.ndarray) -> np.ndarray:
    """(3, 224, 224) float32, normalised -> (224, 224, 3) uint8, to the nearest level."""
    values = (sample - BIAS[:, None, None]) / GAIN[:, None, None]
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(1, 2, 0)
