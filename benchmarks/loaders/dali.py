"""DALI's file reader and CPU pipeline: python -m benchmarks.loaders.dali FOLDER BATCH DTYPE

Settings: CPU only, two threads, asynchronous and pipelined as DALI's default is; all files shuffled
after each epoch; decoding of a random region, antialiased resize. Minibatches stay DALI's own
tensors: nothing is copied to torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types

from benchmarks.peers.variant import MEAN, STD
from benchmarks.storage.contender import paths_of, serve
from benchmarks.storage.recipe import SEED, SIZE, WORKERS


def main(folder: str, batch: int, dtype: str = "uint8") -> None:
    """Epochs until nobody asks for one."""
    paths = list(paths_of(Path(folder)))
    normalise: dict[str, Any] = {"dtype": types.UINT8}
    if dtype == "float32":
        levels = {"mean": [255 * m for m in MEAN], "std": [255 * s for s in STD]}
        normalise = {"dtype": types.FLOAT, **levels}

    @pipeline_def(batch_size=batch, num_threads=WORKERS, device_id=None, seed=SEED)
    def define() -> Any:
        items, labels = fn.readers.file(
            files=paths, labels=[0] * len(paths), shuffle_after_epoch=True, name="files"
        )
        images = fn.decoders.image_random_crop(items, adjust_orientation=False)
        images = fn.resize(
            images, size=(SIZE, SIZE), interp_type=types.INTERP_LINEAR, antialias=True
        )
        images = fn.crop_mirror_normalize(
            images, output_layout="CHW", mirror=fn.random.coin_flip(probability=0.5), **normalise
        )
        return images, labels

    pipeline = define()
    pipeline.build()

    def epoch() -> dict[str, Any]:
        samples = 0
        while samples < len(paths):
            images, _ = pipeline.run()
            samples += len(images)
        return {"samples": samples}

    serve(epoch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
