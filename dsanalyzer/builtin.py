"""A training job of our own, for planning without a script: `dsanalyzer profile --data DIR ...`.

Files of a folder in torch's DataLoader into a model: pictures into an image net or a detector,
recordings into M5, texts into a language model. With an emulated accelerator only the model's rate
counts.

    python -m dsanalyzer.builtin --data DIR --model resnet18 --batch-size 64 --workers 4
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dsanalyzer.workloads.audio import AUDIO
from dsanalyzer.workloads.detection import DETECTION
from dsanalyzer.workloads.pictures import PICTURES
from dsanalyzer.workloads.text import TEXT
from dsanalyzer.workloads.workload import NoJob, Workload

WORKLOADS = {
    model: workload for workload in (PICTURES, DETECTION, AUDIO, TEXT) for model in workload.models
}


def check(folder: Path, model: str, emulated: bool) -> None:
    """Raises NoJob where there is no such model here, or nothing for it in the folder."""
    workload = workload_of(model)
    workload.samples(folder)
    if reason := workload.why_not(model, emulated):
        raise NoJob(reason)


def workload_of(model: str) -> Workload:
    """Raises NoJob where there is none."""
    if model not in WORKLOADS:
        raise NoJob(f"unknown model {model!r}; there are {', '.join(WORKLOADS)}")
    return WORKLOADS[model]


def train(folder: Path, model: str, batch_size: int, workers: int) -> None:
    """Trains until it is stopped."""
    import torch
    from torch.utils._pytree import tree_map_only
    from torch.utils.data import DataLoader

    workload = workload_of(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = workload.build(model).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    data: Any = workload.data(workload.samples(folder))
    loader = DataLoader(
        data,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=len(data) >= batch_size,
        pin_memory=device == "cuda",
    )
    while True:
        for batch in loader:
            loss = workload.loss(net, tree_map_only(torch.Tensor, lambda t: t.to(device), batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="resnet18", choices=WORKLOADS)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    train(options.data, options.model, options.batch_size, options.workers)


if __name__ == "__main__":
    main()
