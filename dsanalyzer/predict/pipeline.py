"""From samples to steps: how minibatches are made ahead of a training, and what takes them.

Time is kept per granule, a part of a minibatch, so that an epoch costs thousands of events and not
millions. Which items hit is decided item by item.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dsanalyzer.predict.caches import Origin
from dsanalyzer.predict.events import Clock, Event, Limited, Shared
from dsanalyzer.predict.setup import Setup

GRANULES = 8  # parts of a minibatch


@dataclass
class World:
    """What producers and consumers act in; lists have an entry per server (or shared disk)."""

    setup: Setup
    clock: Clock
    random: random.Random
    origin: Callable[[int, int], Origin]
    cores: list[Shared]
    storage: list[Shared | Limited]
    network: list[Shared]
    reads: dict[Origin, int]
    gpu_s: float = 0.0
    prep_s: float = 0.0  # during which workers prepared, or waited for a core to


class Producer:
    """One order of samples on its way from storage to minibatches in memory."""

    def __init__(self, world: World, server: int, order: list[int], readers: int = 1) -> None:
        self.world = world
        self.setup = setup = world.setup
        self.server = server
        size = setup.batch_size
        self.batches = [order[i : i + size] for i in range(0, len(order) // size * size, size)]
        self.ready: set[int] = set()
        self._waiting: dict[int, list[Event]] = {}
        self._taken = [0] * len(self.batches)
        self._readers = readers
        self._asked = 0  # minibatches given to workers so far
        self._queues: list[deque[int]] = [deque() for _ in range(max(1, setup.workers))]
        self._idle = [True] * len(self._queues)
        self._stages = _Stages(self) if setup.staged else None
        if setup.workers:
            for _ in range(setup.prefetch_factor * len(self._queues)):
                self._ask_one()

    def _ask_one(self) -> None:
        """The next minibatch goes to the worker whose turn it is, as torch's loader does."""
        if self._asked >= len(self.batches):
            return
        number, self._asked = self._asked, self._asked + 1
        if self._stages is not None:
            self._stages.add(number)
            return
        worker = number % len(self._queues)
        self._queues[worker].append(number)
        if self._idle[worker]:
            self._work(worker)

    def _work(self, worker: int) -> None:
        if not self._queues[worker]:
            self._idle[worker] = True
            return
        self._idle[worker] = False
        number = self._queues[worker].popleft()
        parts = deque(self.granules(number))

        def following() -> None:
            if not parts:
                self.finish(number)
                self._work(worker)
                return
            items, effort = parts.popleft()
            self.fetch(items, lambda: self.prepare(items, effort, following))

        following()

    def granules(self, number: int) -> list[tuple[list[int], float]]:
        """A minibatch in parts, and its prep time over the mean's."""
        items = self.batches[number]
        size = max(1, -(-len(items) // GRANULES))
        spread = self.setup.spread
        effort = 1.0
        if spread:  # log-normal: never negative, some minibatches are much slower
            sigma = math.sqrt(math.log(1 + spread**2))
            effort = self.world.random.lognormvariate(-(sigma**2) / 2, sigma)
        return [(items[i : i + size], effort) for i in range(0, len(items), size)]

    def fetch(self, items: list[int], done: Event) -> None:
        """From storage and peers what memory does not hold; memory's own cost is part of prep."""
        world, server = self.world, self.server
        found = [world.origin(server, item) for item in items]
        for origin in found:
            world.reads[origin] += 1
        missed, sent = found.count("storage"), found.count("peer")
        storage = world.storage[server % len(world.storage)]
        network = world.network[server]
        # A network without a limit costs nothing.
        received = sent if math.isfinite(self.setup.network) else 0
        setup = self.setup

        def read() -> None:
            cores = world.cores[server]
            cores.use(missed * setup.read_s, lambda: network.use(received, done))

        def let_through() -> None:
            if missed and setup.limited and setup.latency_s:
                world.clock.at(world.clock.now + missed * setup.latency_s, read)
            else:
                read()

        storage.use(missed, let_through)

    def prepare(self, items: list[int], effort: float, done: Event) -> None:
        setup, clock, world = self.setup, self.world.clock, self.world
        blocked = setup.blocked_s * len(items) * effort
        work = setup.prep_s * len(items) * effort
        begin = clock.now

        def prepared() -> None:
            world.prep_s += clock.now - begin
            done()

        def waited() -> None:
            if blocked > 0:
                clock.at(clock.now + blocked, prepared)
            else:
                prepared()

        self.world.cores[self.server].use(work, waited)

    def finish(self, number: int) -> None:
        self.ready.add(number)
        for event in self._waiting.pop(number, ()):
            event()

    def take(self, number: int, taken: Event) -> None:
        """`taken` is called once minibatch `number` is there; all having it, its place is free."""
        if not self.setup.workers and self._asked <= number:
            self._ask_one()

        def give() -> None:
            self._taken[number] += 1
            if self._taken[number] == self._readers:
                self.ready.discard(number)
                if self.setup.workers:
                    self._ask_one()
            taken()

        if number in self.ready:
            give()
        else:
            self._waiting.setdefault(number, []).append(give)


class _Stages:
    """Fetch threads read ahead in order; prep threads take what has arrived."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._unfetched: deque[tuple[int, list[int], float]] = deque()
        self._fetched: deque[tuple[int, list[int], float]] = deque()
        self._fetching = self._preparing = 0
        self._left: dict[int, int] = {}

    def add(self, number: int) -> None:
        parts = self._producer.granules(number)
        self._left[number] = len(parts)
        self._unfetched.extend((number, items, effort) for items, effort in parts)
        self._go_on()

    def _go_on(self) -> None:
        setup = self._producer.setup
        while self._unfetched and self._fetching < setup.fetch_depth:
            part = self._unfetched.popleft()
            self._fetching += 1
            self._producer.fetch(part[1], lambda part=part: self._arrived(part))  # type: ignore[misc]
        while self._fetched and self._preparing < max(1, setup.workers):
            number, items, effort = self._fetched.popleft()
            self._preparing += 1
            self._producer.prepare(items, effort, lambda number=number: self._prepared(number))  # type: ignore[misc]

    def _arrived(self, part: Any) -> None:
        self._fetching -= 1
        self._fetched.append(part)
        self._go_on()

    def _prepared(self, number: int) -> None:
        self._preparing -= 1
        self._left[number] -= 1
        if not self._left[number]:
            del self._left[number]
            self._producer.finish(number)
        self._go_on()


class Barrier:
    """Servers of one job start every step together."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: list[Event] = []

    def arrive(self, event: Event) -> None:
        self._waiting.append(event)
        if len(self._waiting) == self._count:
            arrived, self._waiting = self._waiting, []
            for each in arrived:
                each()


class Consumer:
    """A training process: takes minibatches in order, works on them, hands them to its device."""

    def __init__(
        self, world: World, producer: Producer, server: int, barrier: Barrier | None
    ) -> None:
        self._world = world
        self._producer = producer
        self._server = server
        self._barrier = barrier
        self._number = 0
        self._device_free = 0.0
        self._ends: deque[float] = deque()

    def ask(self) -> None:
        if self._number == len(self._producer.batches):
            # The epoch lasts until the accelerator is done.
            self._world.clock.at(self._device_free, lambda: None)
            return
        self._producer.take(self._number, self._taken)

    def _taken(self) -> None:
        self._number += 1
        if self._barrier is None:
            self._step()
        else:
            self._barrier.arrive(self._step)

    def _step(self) -> None:
        setup = self._world.setup
        work = setup.host_s * setup.batch_size
        parts = max(1, round(setup.host_cores))
        left = parts

        def host_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._submit()

        for _ in range(parts):
            self._world.cores[self._server].use(work / parts, host_done)

    def _submit(self) -> None:
        setup, clock = self._world.setup, self._world.clock
        if math.isinf(setup.gpu_rate):  # the training process's own cores compute
            self._world.gpu_s += setup.host_s * setup.batch_size / max(1.0, setup.host_cores)
            clock.at(clock.now, self.ask)
            return
        lasts = setup.batch_size / setup.gpu_rate
        self._device_free = max(self._device_free, clock.now) + lasts
        self._world.gpu_s += lasts
        self._ends.append(self._device_free)
        if len(self._ends) > setup.device_ahead:
            clock.at(self._ends.popleft(), self.ask)
        else:
            clock.at(clock.now, self.ask)
