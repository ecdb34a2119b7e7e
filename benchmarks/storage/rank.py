"""One rank of a DDP job on an emulated server: python -m benchmarks.storage.rank KIND RANK ...

KIND: "stock", torch's DataLoader with two persistent workers; or "ours", coordl's with a cache that
is shared with the other ranks. Then WORLD FOLDER BATCH CACHE ARENAS MASTER TOKEN FORM PREP. The job
is joined with the first epoch. Epochs end when all ranks have ended theirs.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data.distributed import DistributedSampler

from benchmarks.storage.contender import serve
from benchmarks.storage.recipe import SEED, SIZE, WORKERS
from coordl import DataLoader, ImageFolder, transforms

LIGHT = 64  # edge of the crop that takes little prep


def loader_of(
    kind: str, folder: str, batch: int, cache: str, form: str, prep: str, rank: int, world: int
) -> Any:
    light = transforms.RandomCrop(LIGHT, pad_if_needed=True)
    crop = light if prep == "light" else transforms.RandomResizedCrop(SIZE)
    recipe = transforms.Compose([crop, transforms.RandomHorizontalFlip(), transforms.PILToTensor()])
    data = ImageFolder(folder, recipe)
    sampler: Any = DistributedSampler(data, world, rank, seed=SEED)
    if kind == "stock":
        return torch.utils.data.DataLoader(
            data, batch, sampler=sampler, num_workers=WORKERS, persistent_workers=True
        )
    options: dict[str, Any] = {"cache": cache, "cache_form": form, "peers": "auto"}
    return DataLoader(data, batch, sampler=sampler, num_workers=WORKERS, seed=SEED, **options)


def main(
    kind: str, rank: int, world: int, folder: str, batch: int, cache: str, form: str, prep: str
) -> None:
    """Epochs until nobody asks for one."""
    loader = loader_of(kind, folder, batch, cache, form, prep, rank, world)
    number = 0

    def epoch() -> dict[str, Any]:
        nonlocal number
        if number == 0:
            dist.init_process_group("gloo", rank=rank, world_size=world)
        loader.sampler.set_epoch(number)
        number += 1
        samples = sum(len(images) for images, _ in loader)
        figures: dict[str, Any] = {"samples": samples}
        if kind == "ours":
            last = loader.stats()["epochs"][-1]
            names = ("hits", "remote_hits", "remote_bytes", "misses", "storage_bytes")
            figures |= {name: last[name] for name in names}
        dist.barrier()
        return figures

    serve(epoch)


if __name__ == "__main__":
    given = sys.argv[1:]
    os.environ.update(
        COORDL_SHM_DIR=given[6],
        MASTER_ADDR=given[7],
        MASTER_PORT="29555",
        COORDL_TOKEN=given[8],
        COORDL_PEERS_LINGER_S="0",
        GLOO_SOCKET_IFNAME="eth0",
    )
    kind, rank, world, folder, batch, cache = given[:6]
    main(kind, int(rank), int(world), folder, int(batch), cache, *given[9:])
