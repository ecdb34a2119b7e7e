"""What a simulation is of: one training, its machine, and who shares it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True)
class Setup:
    """What is simulated. Rates in samples/s, times in seconds per sample unless said otherwise.

    Args:
        samples: of an epoch.
        batch_size: samples per minibatch and server.
        workers: of all ranks; 0 loads in the training process.
        ranks: processes that train together on a server, each with a loader.
        prefetch_factor: minibatches asked of each worker in advance.
        gpu_rate: samples/s that the accelerators of one server take.
        prep_s: core seconds of prep. blocked_s: what a worker waits beside them (neither core nor
            storage).
        read_s: core seconds of reading a sample from storage, beside its prep.
        host_s: core seconds of the training process. host_cores: that it uses at once.
        prep_table: (workers, samples/s of prep) as measured, fewest first; empty without a sweep.
        spread: standard deviation over mean of the prep time of a minibatch.
        storage: (queue depth, rate) pairs; the rate between two depths is interpolated.
        limited: storage is held to its rate rather than as slow as that, and may give at once what
            it has not given for `burst_s` seconds. latency_s: what a read takes the disk behind.
        cores: per server.
        policy, cached_fraction: of each server's memory for data; the fraction is of the data set.
        jobs: on one server, each with accelerators of its own. coordinated: fetch and prep are done
            once for all of them.
        servers: that train one job together. partitioned: their caches are one.
        shared_storage: the servers read from one storage, else each has its own.
        network: samples/s that a server receives from its peers.
        staged: fetch and prep have threads of their own, as in coordl; else each worker does both.
        fetch_depth: fetch threads, where staged.
        device_ahead: steps the training process may be ahead of the accelerator.
    """

    samples: int
    batch_size: int
    workers: int
    gpu_rate: float
    prep_s: float
    storage: tuple[tuple[int, float], ...]
    cores: int
    policy: str
    cached_fraction: float
    limited: bool = False
    burst_s: float = 0.1  # the kernel's throttle, measured on 85 KB files at 10 to 120 MB/s
    latency_s: float = 0.0
    prefetch_factor: int = 2
    blocked_s: float = 0.0
    prep_table: tuple[tuple[int, float], ...] = ()
    read_s: float = 0.0
    host_s: float = 0.0
    host_cores: float = 1.0
    spread: float = 0.0
    ranks: int = 1
    jobs: int = 1
    coordinated: bool = False
    servers: int = 1
    partitioned: bool = False
    shared_storage: bool = False
    network: float = math.inf
    staged: bool = False
    fetch_depth: int = 16
    device_ahead: int = 2

    def __post_init__(self) -> None:
        if self.jobs > 1 and self.servers > 1:
            raise ValueError("several jobs on several servers at once are not simulated")
        for name in ("gpu_rate", "prep_s", "batch_size", "cores", "samples"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a positive number")
        if not self.storage or min(rate for _, rate in self.storage) <= 0:
            raise ValueError("storage has no rate: give pairs of queue depth and samples/s")

    def measured_prep(self, workers: int) -> float | None:
        """Samples/s of prep with so many workers, between those measured; None beyond them."""
        counts = [count for count, _ in self.prep_table]
        if not counts or not counts[0] <= workers <= counts[-1]:
            return None
        for (low, slow), (high, fast) in pairwise(self.prep_table):
            if low <= workers <= high:
                return slow + (fast - slow) * (workers - low) / (high - low)
        return self.prep_table[0][1]

    def storage_rate(self, depth: int) -> float:
        """Samples/s of storage with `depth` reads at a time."""
        table = sorted(self.storage)
        if depth <= table[0][0]:
            return table[0][1]
        for (low, slow), (high, fast) in pairwise(table):
            if depth <= high:
                part = math.log(depth / low) / math.log(high / low)
                return slow + part * (fast - slow)
        return table[-1][1]


def without(setup: Setup, feature: str) -> Setup:
    """`setup` with one thing idealised that the closed form does not know, to see what it costs.

    Features: "varying minibatches", "fetch and prep by turns in each worker", "a short queue".
    """
    if feature == "varying minibatches":
        return replace(setup, spread=0.0)
    if feature == "fetch and prep by turns in each worker":
        return replace(setup, staged=True)
    if feature == "a short queue":
        return replace(setup, prefetch_factor=8 * setup.prefetch_factor)
    raise ValueError(f"unknown feature {feature!r}")
