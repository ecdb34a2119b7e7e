"""torchcodec's image decoder, and torchvision v2's kernels after it.

Settings: decode_jpeg on CPU to a uint8 tensor, antialiased resize, normalised into a reused batch.
Pitfalls: from 0.16 on (images); the PyPI wheel is built for CUDA, see stubs.py; it decodes the
whole picture: decode_jpeg takes no region.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from .boxes import Box
from .stubs import load_stubs
from .torchvision import normalise_into, resize
from .variant import SIZE, Picture, Variant


class Reused(Variant):
    """decode_jpeg, then torch's resize."""

    settings = "decode_jpeg, crop, antialiased resize as uint8, normalised into a reused batch"
    packages: ClassVar = ("torchcodec", "torch")

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        load_stubs()
        from torchcodec.decoders import decode_jpeg

        self.decode = decode_jpeg
        self.out = torch.zeros(3, SIZE, SIZE)

    def one(self, index: int, box: Box) -> np.ndarray:
        """From bytes, as its documentation has it."""
        decoded = self.decode(self.pictures[index].item)
        return normalise_into(self.out, resize(decoded, box), box.flip)
