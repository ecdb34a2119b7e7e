"""PyTurboJPEG over the system's libturbojpeg: decoding, then cv2.resize.

Settings: `decode` with the default (accurate) DCT of the whole picture, then INTER_AREA.
Pitfalls: its `crop` is lossless JPEG cropping on MCU boundaries, which writes a JPEG again: not
tried. 1.8.3 is the last version for libjpeg-turbo 2, which is what Debian has; the library is the
system's (apt: libturbojpeg0).
"""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
from turbojpeg import TJPF_RGB, TurboJPEG

from .boxes import Box
from .variant import SIZE, IntoBatch, LeftOut, Picture


class Turbojpeg(IntoBatch):
    """tjDecompress of the whole picture, then cv2."""

    settings = "decode, INTER_AREA, normalised into a reused batch"
    packages: ClassVar = ("PyTurboJPEG", "opencv-python-headless")
    antialias: ClassVar = False

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        try:
            self.jpeg = TurboJPEG()
        except RuntimeError as error:
            raise LeftOut(str(error)) from error
        cv2.setNumThreads(0)

    def one(self, index: int, box: Box) -> np.ndarray:
        """Whole picture, RGB, then the box of it."""
        image = self.jpeg.decode(self.pictures[index].item, pixel_format=TJPF_RGB)
        part = image[box.y : box.y + box.height, box.x : box.x + box.width]
        part = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return self.normalise(part, box.flip)
