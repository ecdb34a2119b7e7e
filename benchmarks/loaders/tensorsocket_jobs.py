"""Jobs on TensorSocket, as its page has it: a producer around torch's DataLoader, a consumer a job.

    python -m benchmarks.loaders.tensorsocket_jobs produce FOLDER BATCH DTYPE WORKERS PORTS
    python -m benchmarks.loaders.tensorsocket_jobs consume BATCH RATE PORTS

PORTS: four, with commas between. The loader is the one that torch's jobs have here (Pillow's
recipe, persistent workers); everything else is TensorSocket's default. A pass ends when the
producer says so; what does not fill its last group of minibatches it does not deliver.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import torch
import torch.utils.data

from benchmarks.loaders.accelerator import paced
from benchmarks.loaders.torchs import one_thread, pillow
from benchmarks.storage.contender import serve
from benchmarks.storage.recipe import SEED

BY = 2  # minibatches it puts together: with one, 0.0.5 fails


def free_ports() -> str:
    """Four that nobody listens at now."""
    sockets = [socket.socket() for _ in range(4)]
    for each in sockets:
        each.bind(("", 0))
    ports = ",".join(str(each.getsockname()[1]) for each in sockets)
    for each in sockets:
        each.close()
    return ports


def _named(ports: str) -> dict[str, Any]:
    data, acknowledged, *heart = map(int, ports.split(","))
    return {"port": data, "ack_port": acknowledged, "heart_ports": tuple(heart)}


def produce(folder: str, batch: int, dtype: str, workers: int, ports: str) -> None:
    """Passes until it is killed: the jobs decide when it is enough."""
    from tensorsocket import TensorProducer

    torch.manual_seed(SEED)
    loader = torch.utils.data.DataLoader(
        pillow(folder, dtype == "float32"),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        worker_init_fn=one_thread,
    )
    producer = TensorProducer(loader, producer_batch_size=BY, **_named(ports))
    while True:
        for _ in producer:
            pass


def consume(batch: int, rate: float, ports: str) -> None:
    """Epochs until nobody asks for one. The first joins: all jobs begin together."""
    from tensorsocket import TensorConsumer

    consumers: list[Any] = []

    def epoch() -> dict[str, Any]:
        if not consumers:
            consumers.append(TensorConsumer(**_named(ports), batch_size=batch))
        return {"samples": sum(len(images) for images in paced(consumers[0], rate))}

    serve(epoch)


if __name__ == "__main__":
    if sys.argv[1] == "produce":
        folder, batch, dtype, workers, ports = sys.argv[2:]
        produce(folder, int(batch), dtype, int(workers), ports)
    else:
        consume(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
