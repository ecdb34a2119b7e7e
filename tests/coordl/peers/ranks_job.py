"""One rank of a torchrun job on two emulated servers: a node's arenas are where its rank says.

Arguments: the image folder, a directory for results, epochs. Each rank writes what it counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data.distributed import DistributedSampler

import coordl
from coordl import transforms as T


def digest(loader: Any) -> str:
    found = hashlib.sha256()
    for images, labels in loader:
        found.update(images.numpy().tobytes() + labels.numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    folder, results, epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    os.environ["COORDL_SHM_DIR"] += f"/node{rank}"
    torch.set_num_threads(1)
    transform = T.Compose([T.RandomResizedCrop(48), T.RandomHorizontalFlip(), T.ToTensor()])
    data = coordl.ImageFolder(folder, transform)
    sampler: Any = DistributedSampler(data, seed=3)
    options: Any = {"sampler": sampler, "seed": 5, "num_workers": 1, "prep": "native"}
    loader = coordl.DataLoader(data, 4, cache="200%", peers="auto", **options)
    plain = coordl.DataLoader(data, 4, **options)
    told = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        ours = digest(loader)
        dist.barrier()
        told.append(ours == digest(plain))
    figures = {"same": told, "epochs": loader.stats()["epochs"], "plan": loader.plan()}
    (results / f"{rank}.json").write_text(json.dumps(figures))
    dist.barrier()


if __name__ == "__main__":
    main()
