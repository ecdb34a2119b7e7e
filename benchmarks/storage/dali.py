"""DALI's file reader and CPU pipeline: python -m benchmarks.storage.dali FOLDER BATCH

Settings: CPU only, two threads, asynchronous and pipelined as DALI's default is; the reader
shuffles all files after each epoch; decoding of a random region, antialiased resize. It cannot say
which files were in memory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types

from benchmarks.storage.contender import paths_of, serve
from benchmarks.storage.recipe import SEED, SIZE, WORKERS


def main(folder: str, batch: int) -> None:
    """Epochs until nobody asks for one."""
    paths = list(paths_of(Path(folder)))

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
            images,
            dtype=types.UINT8,
            output_layout="CHW",
            mirror=fn.random.coin_flip(probability=0.5),
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
    main(sys.argv[1], int(sys.argv[2]))
