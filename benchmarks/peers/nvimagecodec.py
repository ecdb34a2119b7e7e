"""nvImageCodec, DALI's decoder on its own: the region only, on the CPU.

Settings: CPU backend (libjpeg-turbo inside), one thread, EXIF left alone, the box as a region of
the code stream; then torch's antialiased resize, or cv2's without antialias.
Pitfalls: without a GPU the device must be -99999 (CPU only), else the constructor calls CUDA; the
extensions for nvJPEG and others complain on stderr that they are not there; a code stream is
parsed when it is made, which belongs to the sample and is timed.
"""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
import torch
from nvidia import nvimgcodec

from .boxes import Box
from .torchvision import normalise_into, resize
from .variant import SIZE, IntoBatch, Picture

CPU_ONLY = -99999  # NVIMGCODEC_DEVICE_CPU_ONLY


class _Region(IntoBatch):
    clock: ClassVar = "process"
    packages: ClassVar = ("nvidia-nvimgcodec-cu12",)

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        backends = [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)]
        self.decoder = nvimgcodec.Decoder(
            device_id=CPU_ONLY, max_num_cpu_threads=1, backends=backends
        )
        self.params = nvimgcodec.DecodeParams(
            apply_exif_orientation=False, sample_format=nvimgcodec.SampleFormat.I_RGB
        )
        self.image = None  # its memory is reused

    def region(self, index: int, box: Box) -> np.ndarray:
        """(height, width, 3) uint8 of the box."""
        whole = nvimgcodec.CodeStream(self.pictures[index].item)
        region = nvimgcodec.Region(box.y, box.x, box.y + box.height, box.x + box.width)
        stream = whole.get_sub_code_stream(region=region)
        self.image = self.decoder.decode(stream, image=self.image, params=self.params)
        return np.asarray(self.image)


class Torch(_Region):
    """With torchvision's antialiased resize kernel."""

    settings = "region decode, torch's antialiased resize as uint8, normalised into a reused batch"
    packages: ClassVar = ("nvidia-nvimgcodec-cu12", "torch")

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        self.batch = torch.from_numpy(self.out)

    def one(self, index: int, box: Box) -> np.ndarray:
        """A channels-last tensor over the decoder's memory."""
        levels = torch.from_numpy(self.region(index, box)).permute(2, 0, 1)
        whole = Box(0, 0, box.width, box.height, box.flip)
        return normalise_into(self.batch, resize(levels, whole), box.flip)


class Cv2(_Region):
    """With OpenCV's resize."""

    settings = "region decode, INTER_LINEAR (no antialias), normalised into a reused batch"
    packages: ClassVar = ("nvidia-nvimgcodec-cu12", "opencv-python-headless")
    antialias: ClassVar = False

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        cv2.setNumThreads(0)

    def one(self, index: int, box: Box) -> np.ndarray:
        """The region as it comes, through cv2."""
        part = cv2.resize(self.region(index, box), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        return self.normalise(part, box.flip)
