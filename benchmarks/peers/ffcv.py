"""FFCV in JPEG mode: its .beton file, its compiled pipeline.

Settings: write_mode "jpg" holding the very bytes of our pictures; RandomResizedCrop decoder, flip,
normalisation to float32, channels first; one worker, minibatches of 32, file in the page cache.
Pitfalls: it draws its own crops, from the same distribution; the resize is cv2's INTER_AREA; the
writer would encode the pictures anew at quality 90, so that its encoder is made to hand on ours;
its pipeline is compiled at first use, in the round that is dropped.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import ClassVar

import ffcv.fields.rgb_image as rgb_image
import numpy as np
import torch
from ffcv.fields import RGBImageField
from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image

from .boxes import RATIO, SCALE, Box
from .variant import MEAN, SIZE, STD, Picture, Variant

MINIBATCH = 32


class _Decoded:
    """The pictures as FFCV's writer takes them: decoded, with the bytes they came from."""

    def __init__(self, pictures: list[Picture]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        item = self.pictures[index].item
        rgb_image.encode_jpeg = lambda *_: np.frombuffer(item, np.uint8)
        return (np.asarray(Image.open(io.BytesIO(item)).convert("RGB")),)


class Ffcv(Variant):
    """FFCV's Loader over its own file."""

    clock: ClassVar = "process"
    settings = "RandomResizedCrop decoder (INTER_AREA), flip, normalise, channels first; 1 worker"
    packages: ClassVar = ("ffcv", "numba")
    same_boxes = False
    antialias: ClassVar = False

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        torch.set_num_threads(1)
        self.folder = tempfile.TemporaryDirectory()
        file = str(Path(self.folder.name) / "pictures.beton")
        field = RGBImageField(write_mode="jpg")
        writer = DatasetWriter(file, {"image": field}, num_workers=1)
        writer.from_indexed_dataset(_Decoded(pictures))
        mean, std = (255 * np.array(values, np.float32) for values in (MEAN, STD))
        self.loader = Loader(
            file,
            batch_size=MINIBATCH,
            num_workers=1,
            order=OrderOption.SEQUENTIAL,
            os_cache=True,
            drop_last=False,
            batches_ahead=1,
            pipelines={
                "image": [
                    RandomResizedCropRGBImageDecoder((SIZE, SIZE), SCALE, RATIO),
                    RandomHorizontalFlip(),
                    NormalizeImage(mean, std, np.float32),
                    ToTensor(),
                    ToTorchImage(channels_last=False),
                ]
            },
        )

    def round(self, boxes: list[Box]) -> None:
        """One epoch of the loader."""
        seen = sum(len(images) for (images,) in self.loader)
        if seen != len(boxes):
            raise RuntimeError(f"{seen} samples came instead of {len(boxes)}")
