"""A simulated training: finite prefetch queues, varying minibatches, and what jobs share.

What it has that the closed form has not: a worker that fetches and then prepares overlaps the two
only with other workers; a queue of `prefetch_factor` minibatches a worker is finite; minibatches
differ; the first epoch finds caches empty; jobs share a disk, cores and page cache; servers wait
for one another at every step, and ask each other for items over a network.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from dsanalyzer.predict import caches
from dsanalyzer.predict.events import Clock, Limited, Shared
from dsanalyzer.predict.pipeline import Barrier, Consumer, Producer, World
from dsanalyzer.predict.setup import Setup

LEAST_BATCHES = 60  # of an epoch of one job on one server
ITEMS = 4096  # simulated at most, where that is enough minibatches
EPOCHS = 3  # the first is cold; the mean of the last two is the steady state
SERVER_EPOCHS = 7  # servers that read a part per epoch fill their memory over several


@dataclass(frozen=True)
class Simulated:
    """What came out. Speeds are one job's, over all its servers, in samples/s.

    Attributes:
        first_speed: of the first epoch, all caches empty.
        speed: mean of the later epochs.
        hit_rate: reads answered by memory or a peer, in the later epochs.
        peer_share: of reads, answered by a peer.
        busy: share of the later epochs' time in which cores, workers (with prep), storage, network
            and accelerator were occupied, each as a share of what one server has.
    """

    first_speed: float
    speed: float
    hit_rate: float
    peer_share: float
    busy: dict[str, float] = field(default_factory=dict)

    @property
    def bound_by(self) -> str:
        """The part that had least time to spare: fetch, prep or gpu."""
        fetch = max(self.busy["storage"], self.busy["network"])
        prep = max(self.busy["cores"], self.busy["workers"])
        return max((self.busy["gpu"], "gpu"), (prep, "prep"), (fetch, "fetch"))[1]


def simulate(setup: Setup, *, seed: int = 0, epochs: int | None = None) -> Simulated:
    """Runs `epochs` epochs of a data set that is scaled down, caches with it.

    Raises:
        ValueError: what no training has (no samples, no rate, an unknown policy).
    """
    if epochs is None:
        epochs = EPOCHS if setup.servers == 1 or setup.partitioned else SERVER_EPOCHS
    return _Simulation(setup, seed, epochs).run()


class _Simulation:
    """Servers, jobs and caches of one run."""

    def __init__(self, setup: Setup, seed: int, epochs: int) -> None:
        self.setup = setup
        self.epochs = epochs
        self.items = _items(setup)
        capacity = round(self.items * setup.cached_fraction)
        held = [caches.make(setup.policy, capacity, self.items) for _ in range(setup.servers)]
        disks = 1 if setup.shared_storage else setup.servers
        clock = Clock()
        self.world = World(
            setup,
            clock,
            random.Random(seed),
            caches.lookup(held, setup.partitioned),
            [Shared(clock, lambda n: min(n, setup.cores)) for _ in held],
            [self._storage(clock) for _ in range(disks)],
            [Shared(clock, lambda _: setup.network) for _ in held],
            {"memory": 0, "peer": 0, "storage": 0},
        )

    def _storage(self, clock: Clock) -> Shared | Limited:
        setup = self.setup
        if setup.limited and setup.burst_s > 0:
            readers = setup.fetch_depth if setup.staged else self._threads()
            return Limited(clock, setup.storage_rate(readers), setup.burst_s)
        return Shared(clock, setup.storage_rate, in_turn=True)

    def run(self) -> Simulated:
        epochs_s, usage = [], []
        clock = self.world.clock
        for _ in range(self.epochs):
            # Between two epochs storage rests, as between a profile's passes.
            clock.at(clock.now + self.setup.burst_s, lambda: None)
            clock.run()
            begin = self.world.clock.now
            self._epoch()
            self.world.clock.run()
            epochs_s.append(self.world.clock.now - begin)
            usage.append(self._usage())
        return self._result(epochs_s, usage)

    def _result(self, epochs_s: list[float], usage: list[dict[str, float]]) -> Simulated:
        """The first epoch alone, and the mean of the last two."""
        seconds = sum(epochs_s[-2:])
        before = usage[-3] if len(usage) > 2 else {}
        used = {name: total - before.get(name, 0.0) for name, total in usage[-1].items()}
        reads = max(1.0, used["memory"] + used["peer"] + used["storage_reads"])
        servers, disks = self.setup.servers, len(self.world.storage)
        devices = servers if servers > 1 else self.setup.jobs
        return Simulated(
            first_speed=self._epoch_samples() / epochs_s[0],
            speed=self._epoch_samples() * len(epochs_s[-2:]) / seconds,
            hit_rate=(used["memory"] + used["peer"]) / reads,
            peer_share=used["peer"] / reads,
            busy={
                "cores": used["cores"] / (seconds * servers * self._usable_cores()),
                "workers": used["workers"] / (seconds * servers * self._threads()),
                "storage": used["storage"] / (seconds * disks),
                "network": used["network"] / (seconds * servers),
                "gpu": used["gpu"] / (seconds * devices),
            },
        )

    def _usable_cores(self) -> float:
        """Workers that are fewer than cores are what prep is bound by."""
        return min(self.setup.cores, self._threads())

    def _threads(self) -> int:
        """That prepare, of all jobs on a server."""
        return max(1, self.setup.workers) * (1 if self.setup.coordinated else self.setup.jobs)

    def _usage(self) -> dict[str, float]:
        world = self.world
        return {
            "cores": sum(shared.work_done for shared in world.cores),
            "workers": world.prep_s,
            "storage": sum(shared.busy_s for shared in world.storage),
            "network": sum(shared.busy_s for shared in world.network),
            "gpu": world.gpu_s,
            "memory": world.reads["memory"],
            "peer": world.reads["peer"],
            "storage_reads": world.reads["storage"],
        }

    def _epoch_samples(self) -> int:
        """Samples one job trains on in an epoch, whole minibatches."""
        share = self.items // self.setup.servers
        return share // self.setup.batch_size * self.setup.batch_size * self.setup.servers

    def _epoch(self) -> None:
        """Starts an epoch: one producer per order of samples, one consumer per job or server."""
        setup = self.setup
        if setup.servers > 1:
            order = self._order()
            barrier = Barrier(setup.servers)
            for server in range(setup.servers):
                producer = Producer(self.world, server, order[server :: setup.servers])
                Consumer(self.world, producer, server, barrier).ask()
            return
        if setup.coordinated:
            producer = Producer(self.world, 0, self._order(), readers=setup.jobs)
            for _ in range(setup.jobs):
                Consumer(self.world, producer, 0, None).ask()
            return
        for _ in range(setup.jobs):
            Consumer(self.world, Producer(self.world, 0, self._order()), 0, None).ask()

    def _order(self) -> list[int]:
        order = list(range(self.items))
        self.world.random.shuffle(order)
        return order


def _items(setup: Setup) -> int:
    """Items simulated: the prefetch window must stay small against an epoch."""
    window = setup.batch_size * max(1, setup.workers) * setup.prefetch_factor
    batches = LEAST_BATCHES if setup.jobs * setup.servers <= 2 else LEAST_BATCHES // 2
    least = max(batches * setup.batch_size, 8 * window) * setup.servers
    return max(2 * setup.batch_size * setup.servers, min(setup.samples, max(least, ITEMS)))
