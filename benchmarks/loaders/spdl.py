"""SPDL's DataLoader: python -m benchmarks.loaders.spdl FOLDER BATCH DTYPE

Settings: spdl.dataloader.DataLoader with two threads, as its documentation has it for images:
FFmpeg's decoder and filter graph give RGB at 224x224, the aggregator makes one uint8 tensor
(B, 224, 224, 3), and, for float32, the usual normalisation of it as channels last.
Pitfalls: FFmpeg's bilinear differs from Pillow's; a random crop needs the picture's size, read from
its header by Pillow.
"""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import Any

import spdl.io
import torch
from PIL import Image
from spdl.dataloader import DataLoader

from benchmarks.peers.boxes import draw
from benchmarks.peers.variant import MEAN, STD
from benchmarks.storage.contender import paths_of, serve
from benchmarks.storage.recipe import SEED, SIZE, WORKERS


def main(folder: str, batch: int, dtype: str) -> None:
    """Epochs until nobody asks for one."""
    paths = list(paths_of(Path(folder)))
    decoding = spdl.io.decode_config(decoder_options={"threads": "1"})
    mean = 255 * torch.tensor(MEAN)
    gain = 1 / (255 * torch.tensor(STD))
    chance = random.Random(SEED)

    def load(job: tuple[str, int, int]) -> Any:
        path, epoch, index = job
        with Image.open(path) as picture:
            width, height = picture.size
        box = draw(SEED, epoch, index, width, height)
        steps = [f"crop={box.width}:{box.height}:{box.x}:{box.y}:exact=1"]
        steps += [f"scale={SIZE}:{SIZE}:flags=bilinear", "format=rgb24"]
        filters = ",".join([*steps, *(["hflip"] if box.flip else [])])
        packets = spdl.io.demux_image(path)
        return spdl.io.decode_packets(packets, decode_config=decoding, filter_desc=filters)

    def aggregate(frames: list[Any]) -> torch.Tensor:
        images = spdl.io.to_torch(spdl.io.convert_frames(frames))
        if dtype == "float32":
            images = (images.to(torch.float32) - mean) * gain
        return images.permute(0, 3, 1, 2)

    epochs = itertools.count()

    def epoch() -> dict[str, Any]:
        number = next(epochs)
        order = chance.sample(range(len(paths)), len(paths))
        loader = DataLoader(
            [(paths[index], number, index) for index in order],
            preprocessor=load,
            batch_size=batch,
            aggregator=aggregate,
            num_threads=WORKERS,
            output_order="input",
        )
        return {"samples": sum(len(images) for images in loader)}

    serve(epoch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
