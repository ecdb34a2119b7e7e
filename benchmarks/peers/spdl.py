"""SPDL: FFmpeg's JPEG decoder and its filter graph.

Settings: load_image with a filter graph crop, scale, hflip, rgb24; one decoder thread; normalised
into a reused batch.
Pitfalls: the filter graph is built for every picture, as boxes differ; swscale's bilinear widens on
downscales, but chroma is scaled apart from luma, so pixels differ from Pillow's; the plain crop
rounds the box to even pixels unless `exact=1`. Needs FFmpeg's libraries (apt: ffmpeg).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import spdl.io

from .boxes import Box
from .variant import SIZE, IntoBatch, Picture


class Spdl(IntoBatch):
    """Decoding, crop and resize in FFmpeg."""

    clock: ClassVar = "process"
    settings = (
        "load_image: crop exact, scale bilinear, hflip, rgb24; normalised into a reused batch"
    )
    packages: ClassVar = ("spdl-io",)

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        self.decoding = spdl.io.decode_config(decoder_options={"threads": "1"})

    def one(self, index: int, box: Box) -> np.ndarray:
        """One call of load_image."""
        steps = [f"crop={box.width}:{box.height}:{box.x}:{box.y}:exact=1"]
        steps += [f"scale={SIZE}:{SIZE}:flags=bilinear", "format=rgb24"]
        buffer = spdl.io.load_image(
            self.pictures[index].item,
            decode_config=self.decoding,
            filter_desc=",".join([*steps, *(["hflip"] if box.flip else [])]),
        )
        return self.normalise(spdl.io.to_numpy(buffer), False)
