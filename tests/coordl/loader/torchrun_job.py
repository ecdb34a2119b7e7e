"""A rank of a job under torchrun, which writes down what it was given. Run by test_torchrun.py.

torchrun ... torchrun_job.py PICTURES FOLDER {epochs,crash,go-on}
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.utils.data
from torch.utils.data.distributed import DistributedSampler

import coordl
from coordl import transforms as T

EPOCH, BATCH, KEPT = 3, 2, 2  # the epoch that is broken off, after so many minibatches


def targets(loader: Any) -> list[int]:
    return [target for _, several in loader for target in several.tolist()]


def main() -> None:
    pictures, folder, what = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    whole = coordl.ImageFolder(pictures, T.Compose([T.RandomResizedCrop(8), T.ToTensor()]))
    data = torch.utils.data.Subset(whole, range(11))  # no multiple of 2 or 3
    sampler = DistributedSampler(data, seed=5)
    ours: Any = coordl.DataLoader(data, BATCH, sampler=sampler, num_workers=2, seed=1)
    if what == "epochs":
        stock: Any = torch.utils.data.DataLoader(data, BATCH, sampler=sampler)
        alone = coordl.EvaluationSampler(data)
        told: Any = {"ours": [], "torch": [], "evaluated": targets(
            coordl.DataLoader(data, BATCH, sampler=alone, num_workers=2)
        )}  # fmt: skip
        for epoch in range(2):
            sampler.set_epoch(epoch)
            told["ours"].append(targets(ours))
            told["torch"].append(targets(stock))
        assert all(epoch["native"] for epoch in ours.stats()["epochs"])
    elif what == "crash":
        sampler.set_epoch(EPOCH)
        taken: list[int] = []
        for number, (_, several) in enumerate(ours):
            if number == KEPT:  # beyond the checkpoint: lost with the job, and given again
                dist.barrier()
                if rank == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                dist.barrier()  # until the launcher ends it
            taken += several.tolist()
            if number == KEPT - 1:
                (folder / f"taken{rank}.json").write_text(json.dumps(taken))
                (folder / f"state{rank}.json").write_text(json.dumps(ours.state_dict()))
        raise AssertionError("the epoch is longer than that")
    else:
        ours.load_state_dict(json.loads((folder / "state0.json").read_text()))
        told = {"rest": targets(ours), "epoch": sampler.epoch}
    name = f"{what}{dist.get_world_size()}-{rank}.json"
    (folder / name).write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
