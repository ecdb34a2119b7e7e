"""A digest of an epoch's samples, whatever minibatches they came in."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch

_MASK = (1 << 64) - 1


class Content:
    """The sum, over samples, of the CRC-32 of index and pixels, spread over 64 bits."""

    def __init__(self) -> None:
        self.samples = 0
        self.digest = 0

    def add(self, indices: np.ndarray, images: Any) -> None:
        """A minibatch: indices (B,), images (B, ...) a tensor, in any layout."""
        for index, image in zip(indices.tolist(), images, strict=True):
            pixels = image.contiguous().view(-1).view(torch.uint8).numpy()
            one = zlib.crc32(pixels, zlib.crc32(index.to_bytes(8, "little")))
            self.digest = (self.digest + one * 0x9E3779B97F4A7C15) & _MASK
            self.samples += 1
