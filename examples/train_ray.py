"""Trains with Ray Train, the nodes of the cluster sharing their caches.

    python examples/train_ray.py DATA --workers 8          # in a Ray cluster
    python examples/train_ray.py DATA --emulate 2          # or two nodes emulated on this machine

DATA has a folder for each class, the same path on all nodes. Needs
`pip install 'data-stall-toolkit[ray]'`, and a token (`coordl token`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train
from ray.cluster_utils import Cluster
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from torch import nn
from torch.utils.data.distributed import DistributedSampler

import coordl
from coordl import DataLoader, transforms

READ = ("misses", "hits", "remote_hits")  # items an epoch had from storage, this node, others


def make_loader(data: Path, batch_size: int, image_size: int) -> DataLoader:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    dataset = coordl.ImageFolder(data, transform)
    return DataLoader(
        dataset,
        batch_size,
        sampler=DistributedSampler(dataset, seed=1),
        num_workers=2,
        cache="200%",
        peers="auto",  # each node holds its share of the data set for all
        seed=1,
    )


def make_model(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, stride=4), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, outputs),
    )  # fmt: skip


def worker(config: dict[str, Any]) -> None:
    """What each worker runs; Ray Train has called init_process_group."""
    loader = make_loader(config["data"], config["batch_size"], config["image_size"])
    model = prepare_model(make_model(config["outputs"]))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    loss_of, device = nn.CrossEntropyLoss(), get_device()
    first = train.get_context().get_world_rank() == 0
    for epoch in range(config["epochs"]):
        loader.sampler.set_epoch(epoch)
        for images, target in loader:
            loss = loss_of(model(images.to(device)), target.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        figures = loader.stats()["epochs"][-1]
        read = torch.tensor([figures[name] for name in READ], device=device)
        torch.distributed.all_reduce(read)
        if first:
            storage, own, others = read.tolist()
            print(f"epoch {epoch}: {storage} from storage, {own} here, {others} from other nodes")
        train.report({"epoch": epoch, "loss": loss.item()})
    if first:
        print(loader.plan().splitlines()[-1])


@contextlib.contextmanager
def emulated(nodes: int, cores: int) -> Iterator[str]:
    """The address of a cluster on this machine; each node has a directory of arenas of its own."""
    os.environ.setdefault("COORDL_TOKEN", secrets.token_hex(32))
    memory = os.environ.get("COORDL_SHM_DIR", "/dev/shm")
    with tempfile.TemporaryDirectory(prefix="coordl-nodes-", dir=memory) as home:
        cluster = Cluster()
        for number in range(nodes):
            place = Path(home, f"node{number}")
            place.mkdir()
            environment = {"COORDL_SHM_DIR": str(place), "COORDL_PEERS_LINGER_S": "1"}
            cluster.add_node(num_cpus=cores, env_vars=environment, include_dashboard=False)
        try:
            yield cluster.address
        finally:
            cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the pictures, a folder for each class")
    parser.add_argument("--results", type=Path, help="a folder that all nodes see, for Ray Train")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true", help="a GPU for each worker")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--emulate", type=int, default=0, help="nodes, on this machine")
    args = parser.parse_args()
    names = ("epochs", "batch_size", "image_size")
    config = {name: getattr(args, name) for name in names} | {"data": args.data.resolve()}
    config["outputs"] = len(coordl.ImageFolder(args.data).classes)
    with contextlib.ExitStack() as stack:
        address = None
        if args.emulate:
            cores = -(-args.workers // args.emulate)
            address = stack.enter_context(emulated(args.emulate, cores))
        results = args.results or stack.enter_context(tempfile.TemporaryDirectory())
        ray.init(address=address)
        stack.callback(ray.shutdown)
        TorchTrainer(
            worker,
            train_loop_config=config,
            scaling_config=ScalingConfig(
                num_workers=args.workers, use_gpu=args.gpu, placement_strategy="SPREAD"
            ),
            run_config=RunConfig(storage_path=str(results)),
        ).fit()


if __name__ == "__main__":
    main()
