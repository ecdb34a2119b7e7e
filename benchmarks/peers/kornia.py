"""kornia-rs: Rust's image decoding and its fused resize + normalise.

Settings: Image.decode, crop, flip, resize_normalize_to_tensor; RAYON_NUM_THREADS=1.
Pitfalls: its bilinear has no antialias (the flag concerns cubic and lanczos only), so that
downscales differ visibly from Pillow. Its other decoders (io.ImageDecoder, decode_image_jpegturbo)
were not compared.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from kornia_rs import image

from .boxes import Box
from .variant import MEAN, SIZE, STD, Variant


class Kornia(Variant):
    """Everything in kornia-rs."""

    clock: ClassVar = "process"
    settings = "decode, crop, flip, fused bilinear resize (no antialias) + normalise + CHW"
    packages: ClassVar = ("kornia-rs",)
    antialias: ClassVar = False

    def one(self, index: int, box: Box) -> np.ndarray:
        """Flipped before the resize, since the fused step comes last."""
        decoded = image.Image.decode(self.pictures[index].item, "RGB")
        part = decoded.crop(box.x, box.y, box.width, box.height)
        if box.flip:
            part = part.flip_horizontal()
        return part.resize_normalize_to_tensor(SIZE, SIZE, MEAN, STD).numpy()
