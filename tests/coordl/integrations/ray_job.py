"""A driver of Ray on a cluster emulated on this machine: each node has its own directory of arenas.

Arguments: what to do ("train", "restart" or "nodes"), the image folder, a directory for results,
one for the nodes' arenas, epochs. Workers write RANK.EPOCH.json, what an epoch gave and cost.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch.utils.data.distributed import DistributedSampler

import coordl
from coordl import transforms as T
from coordl.integrations.ray import NAMESPACE

SAME: Any = {"seed": 5, "num_workers": 1, "prep": "native"}


def data_of(folder: str) -> coordl.ImageFolder:
    torch.set_num_threads(1)
    transform = T.Compose([T.RandomResizedCrop(48), T.RandomHorizontalFlip(), T.ToTensor()])
    return coordl.ImageFolder(folder, transform)


def make_loader(folder: str, rank: int, world: int, **options: Any) -> Any:
    data = data_of(folder)
    sampler: Any = DistributedSampler(data, world, rank)
    return coordl.DataLoader(data, 4, sampler=sampler, **SAME, **options)


def digest(loader: Any, epoch: int) -> str:
    loader.sampler.set_epoch(epoch)
    found = hashlib.sha256()
    for images, labels in loader:
        found.update(images.numpy().tobytes() + labels.numpy().tobytes())
    return found.hexdigest()


def told(results: Path, rank: int, epoch: int, loader: Any, found: str) -> None:
    figures = loader.stats()["epochs"][-1]
    plan, node = loader.plan(), ray.get_runtime_context().get_node_id()
    text = json.dumps({"digest": found, "figures": figures, "plan": plan, "node": node})
    (results / f"{rank}.{epoch}.json").write_text(text)


def train(config: dict[str, Any]) -> None:
    """A Train worker; begins after the epochs that have results, and dies once where told to."""
    import ray.train.torch
    import torch.distributed as dist

    results = Path(config["results"])
    context = ray.train.get_context()
    rank = context.get_world_rank()
    shared = {"cache": "200%", "peers": "auto"}
    given = coordl.DataLoader(data_of(config["folder"]), 4, shuffle=True, **SAME, **shared)
    # makes another loader, with a DistributedSampler, and wraps it
    prepared = ray.train.torch.prepare_data_loader(given)
    loader = prepared._dataloader
    assert type(loader) is coordl.DataLoader and loader is not given
    done = len(list(results.glob(f"{rank}.*.json")))
    for epoch in range(done, config["epochs"]):
        found = digest(prepared, epoch)
        if config["dies"] == (rank, epoch) and not (results / "died").exists():
            (results / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()
        told(results, rank, epoch, loader, found)
        dist.barrier()


class Job:
    """A loader in a plain actor: no torch.distributed."""

    def __init__(self, folder: str, results: str, rank: int, world: int) -> None:
        self.rank, self.results = rank, Path(results)
        peers = "ray" if rank else "auto"  # without torch.distributed that is the same
        self.loader = make_loader(folder, rank, world, cache="200%", peers=peers)

    def epoch(self, number: int) -> int:
        """How many servers it knows afterwards."""
        told(self.results, self.rank, number, self.loader, digest(self.loader, number))
        found = re.search(r"peers now: (\d+) server", self.loader.plan())
        assert found is not None
        return int(found[1])


def run_training(folder: str, results: str, epochs: int, dies: tuple[int, int] | None) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    config = {"folder": folder, "results": results, "epochs": epochs, "dies": dies}
    TorchTrainer(
        train,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=3),
        run_config=RunConfig(
            storage_path=results + "/ray", failure_config=FailureConfig(max_failures=1)
        ),
    ).fit()


def run_nodes(
    cluster: Cluster, nodes: list[Any], folder: str, results: str, home: Path
) -> list[int]:
    """Epochs while all is well, until a killed server is there again, and until the others know of
    a lost node. Gives the numbers that came between them, and the one after."""
    jobs = []
    for rank, node in enumerate(nodes):
        strategy = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        kind = ray.remote(Job).options(num_cpus=1, scheduling_strategy=strategy)
        jobs.append(kind.remote(folder, results, rank, len(nodes)))
    numbers = itertools.count()

    def until(servers: int, least: int, also: Callable[[], bool] = lambda: True) -> None:
        deadline = time.monotonic() + 120
        for done, number in enumerate(numbers, 1):
            seen = ray.get([job.epoch.remote(number) for job in jobs], timeout=120)
            if done >= least and set(seen) == {servers} and also():
                return
            assert time.monotonic() < deadline, f"{seen} servers seen"
            time.sleep(0.5)

    until(3, 3)
    killed = next(numbers)
    before = server_at(home / "node0")
    assert before is not None
    keeper = before.parent()
    assert keeper is not None and "Keeper" in " ".join(keeper.cmdline())
    keeper.kill()
    before.kill()
    until(3, 3, lambda: server_at(home / "node0") not in (None, before))
    lost = next(numbers)
    cluster.remove_node(nodes[-1], allow_graceful=False)
    jobs.pop()
    until(2, 3)
    return [killed, lost, next(numbers)]


def server_at(place: Path) -> psutil.Process | None:
    """The process that serves that node's arena."""
    with contextlib.suppress(ValueError, psutil.NoSuchProcess):  # killed, or about to start
        (record,) = place.glob("coordl-peers*")
        return psutil.Process(json.loads(record.read_text())["pid"])
    return None


def main() -> None:
    what, folder, results, home, epochs = *sys.argv[1:4], Path(sys.argv[4]), int(sys.argv[5])
    cluster = Cluster()
    cluster.add_node(num_cpus=0, include_dashboard=False)
    nodes = []
    for number, cores in enumerate([1, 1, 1] if what == "nodes" else [2, 1]):
        place = home / f"node{number}"
        place.mkdir()
        settings = {"COORDL_SHM_DIR": str(place)}
        nodes.append(cluster.add_node(num_cpus=cores, env_vars=settings))
    ray.init(address=cluster.address)
    if what == "nodes":
        phases = run_nodes(cluster, nodes, folder, results, home)
        Path(results, "phases").write_text(json.dumps(phases))
    else:
        run_training(folder, results, epochs, (1, 2) if what == "restart" else None)
    wait_until(lambda: not servers(home) and not keepers())
    ray.shutdown()
    cluster.shutdown()


def servers(home: Path) -> list[int]:
    """Processes that serve an arena below that directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "coordl.peers.server" in (process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):  # it has just ended
                if process.environ().get("COORDL_SHM_DIR", "").startswith(str(home)):
                    found.append(process.pid)
    return found


def keepers() -> list[str]:
    """Names of the actors that are there."""
    there = ray.util.list_named_actors(all_namespaces=True)
    return [each["name"] for each in there if each["namespace"] == NAMESPACE]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


if __name__ == "__main__":
    main()
