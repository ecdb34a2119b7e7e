"""OpenCV: cv2.imdecode, or simplejpeg in its place, then cv2.resize.

Settings: one thread (cv2.setNumThreads(0)); planes are normalised into a reused batch. simplejpeg
decodes with its fast DCT and fast upsampling, as its documentation offers for speed.
Pitfalls: neither linear nor area is Pillow's antialiased filter: linear skips source pixels on
downscales, area averages them in boxes and falls back to linear on upscales. imdecode honours EXIF
orientation unless told not to, and gives BGR.
"""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
import simplejpeg

from .boxes import Box
from .variant import SIZE, IntoBatch, Picture, Variant


class _Cv2(IntoBatch):
    packages: ClassVar = ("opencv-python-headless",)
    antialias: ClassVar = False
    filter = cv2.INTER_LINEAR

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        cv2.setNumThreads(0)
        self.items = [np.frombuffer(picture.item, np.uint8) for picture in pictures]

    def one(self, index: int, box: Box) -> np.ndarray:
        """Whole picture, BGR, then the box of it."""
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(self.items[index], flags)
        part = image[box.y : box.y + box.height, box.x : box.x + box.width]
        part = cv2.resize(part, (SIZE, SIZE), interpolation=self.filter)
        return self.normalise(part, box.flip, bgr=True)


class Linear(_Cv2):
    """cv2.resize's default filter."""

    settings = "imdecode, INTER_LINEAR (no antialias), normalised into a reused batch"


class Area(_Cv2):
    """The filter that cv2's documentation recommends for downscales."""

    settings = "imdecode, INTER_AREA (boxes; linear on upscales), normalised into a reused batch"
    filter = cv2.INTER_AREA


class Simplejpeg(IntoBatch):
    """simplejpeg's fastest decoding, then cv2."""

    settings = "decode_jpeg(fastdct, fastupsample), INTER_AREA, normalised into a reused batch"
    packages: ClassVar = ("simplejpeg", "opencv-python-headless")
    antialias: ClassVar = False

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        cv2.setNumThreads(0)

    def one(self, index: int, box: Box) -> np.ndarray:
        """Whole picture, RGB, then the box of it."""
        item = self.pictures[index].item
        image = simplejpeg.decode_jpeg(item, "RGB", fastdct=True, fastupsample=True)
        part = image[box.y : box.y + box.height, box.x : box.x + box.width]
        part = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return self.normalise(part, box.flip)


class FullDecode(Variant):
    """libjpeg-turbo's decoding of the whole picture, accurate DCT, and nothing else."""

    settings = "decode_jpeg into a reused buffer"
    packages: ClassVar = ("simplejpeg",)

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        self.buffer = bytearray(max(p.width * p.height for p in pictures) * 3)

    def one(self, index: int, box: Box) -> np.ndarray:
        """No sample: the time is what is asked for."""
        item = self.pictures[index].item
        return simplejpeg.decode_jpeg(
            item, "RGB", fastdct=False, fastupsample=False, buffer=self.buffer
        )
