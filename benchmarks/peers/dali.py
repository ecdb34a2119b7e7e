"""DALI's CPU pipeline: decoding of the region, antialiased resize, crop_mirror_normalize.

Settings: CPU only (device_id=None), one thread, minibatches of 32 given by external_source without
copies; synchronous, since on one core pipelining overlaps nothing and its prefetch would cross the
rounds' ends. `Slice` is told the boxes, `RandomCrop` draws its own from the same distribution.
Pitfalls: the decoder's defaults stay (no fast IDCT; region decoding by itself); antialias is the
resize's default and is asked for by name here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from nvidia.dali import fn, pipeline_def, types

from .boxes import RATIO, SCALE, Box
from .variant import MEAN, SIZE, STD, Picture, Variant

MINIBATCH = 32
PIPELINE = pipeline_def(
    batch_size=MINIBATCH,
    num_threads=1,
    device_id=None,
    exec_async=False,
    exec_pipelined=False,
    prefetch_queue_depth=1,
    seed=1,
)


def _finish(images, mirror):
    images = fn.resize(images, size=(SIZE, SIZE), interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mirror=mirror,
        mean=[255 * m for m in MEAN],
        std=[255 * s for s in STD],
    )


class _Pipeline(Variant):
    clock: ClassVar = "process"
    packages: ClassVar = ("nvidia-dali-cuda120",)

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        self.items = [np.frombuffer(picture.item, np.uint8) for picture in pictures]
        self.pipeline = self.define()
        self.pipeline.build()

    def feed(self, boxes: list[Box]) -> None:
        """What a minibatch takes beside its items."""

    def minibatches(self, boxes: list[Box]) -> Iterator[np.ndarray]:
        """(n, 3, 224, 224) float32 views, valid until the next."""
        for first in range(0, len(boxes), MINIBATCH):
            last = min(first + MINIBATCH, len(boxes))
            self.pipeline.feed_input("items", self.items[first:last])
            self.feed(boxes[first:last])
            (out,) = self.pipeline.run()
            yield out.as_array()

    def round(self, boxes: list[Box]) -> None:
        """Whole minibatches."""
        for _ in self.minibatches(boxes):
            pass

    def results(self, boxes: list[Box]) -> Iterator[np.ndarray]:
        """Sample by sample."""
        for minibatch in self.minibatches(boxes):
            yield from minibatch


class Slice(_Pipeline):
    """decoders.image_slice, told the boxes."""

    settings = "image_slice, resize (linear, antialias), crop_mirror_normalize; 1 thread"

    @staticmethod
    @PIPELINE
    def define():
        """The pipeline; corners and extents in px, width first."""
        items = fn.external_source(name="items", dtype=types.UINT8, ndim=1, no_copy=True)
        start = fn.external_source(name="start", dtype=types.INT32, ndim=1)
        shape = fn.external_source(name="shape", dtype=types.INT32, ndim=1)
        mirror = fn.external_source(name="mirror", dtype=types.INT32, ndim=0)
        images = fn.decoders.image_slice(
            items, start=start, shape=shape, axis_names="WH", adjust_orientation=False
        )
        return _finish(images, mirror)

    def feed(self, boxes: list[Box]) -> None:
        """The boxes."""
        feed = self.pipeline.feed_input
        feed("start", [np.array([b.x, b.y], np.int32) for b in boxes])
        feed("shape", [np.array([b.width, b.height], np.int32) for b in boxes])
        feed("mirror", [np.array(b.flip, np.int32) for b in boxes])


class RandomCrop(_Pipeline):
    """decoders.image_random_crop, as DALI's ImageNet example has it."""

    settings = "image_random_crop, resize (linear, antialias), crop_mirror_normalize; 1 thread"
    same_boxes = False

    @staticmethod
    @PIPELINE
    def define():
        """The pipeline."""
        items = fn.external_source(name="items", dtype=types.UINT8, ndim=1, no_copy=True)
        images = fn.decoders.image_random_crop(
            items,
            random_area=list(SCALE),
            random_aspect_ratio=list(RATIO),
            num_attempts=10,
            adjust_orientation=False,
        )
        return _finish(images, fn.random.coin_flip(probability=0.5))
