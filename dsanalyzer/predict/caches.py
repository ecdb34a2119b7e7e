"""What simulated servers hold in memory: never-evict, LRU, the measured page cache, partitions.

A cache is asked once per read, in the order of reads, and says where the item comes from. Items are
numbers from 0.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, Protocol

from dsanalyzer.predict import model

Origin = Literal["memory", "peer", "storage"]


class Cache(Protocol):
    """One server's memory for data."""

    def holds(self, item: int) -> bool: ...

    def read(self, item: int) -> bool:
        """Whether the read hits; what the policy admits is held from now on."""
        ...


class NeverEvict:
    """Admits until full, then only reads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: set[int] = set()

    def holds(self, item: int) -> bool:
        return item in self._held

    def read(self, item: int) -> bool:
        if item in self._held:
            return True
        if len(self._held) < self._capacity:
            self._held.add(item)
        return False


class Lru:
    """Evicts what was read longest ago."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: OrderedDict[int, None] = OrderedDict()

    def holds(self, item: int) -> bool:
        return item in self._held

    def read(self, item: int) -> bool:
        if item in self._held:
            self._held.move_to_end(item)
            return True
        if self._capacity:
            self._held[item] = None
            if len(self._held) > self._capacity:
                self._held.popitem(last=False)
        return False


class PageCache:
    """The kernel's page cache as measured: an item read before hits as often as it did there."""

    def __init__(self, capacity: int, items: int) -> None:
        self._hits = model.hit_rate("pagecache", min(1.0, capacity / items))
        self._read: set[int] = set()
        self._random = random.Random(items)

    def holds(self, item: int) -> bool:
        return item in self._read and self._random.random() < self._hits

    def read(self, item: int) -> bool:
        hit = self.holds(item)
        self._read.add(item)
        return hit


def make(policy: str, capacity: int, items: int) -> Cache:
    """A cache for `capacity` of `items`.

    Raises:
        ValueError: unknown policy.
    """
    if policy == "never-evict":
        return NeverEvict(capacity)
    if policy == "lru":
        return Lru(capacity)
    if policy == "pagecache":
        return PageCache(capacity, items)
    raise ValueError(f"unknown cache policy {policy!r}; choose one of {', '.join(model.POLICIES)}")


def lookup(caches: list[Cache], partitioned: bool) -> Callable[[int, int], Origin]:
    """How server `s` gets item `i`: from its own memory, a peer's, or storage.

    Partitioned, each item has one owner; it alone holds the item, and serves it to the others.
    """
    if not partitioned:
        return lambda server, item: "memory" if caches[server].read(item) else "storage"

    def owned(server: int, item: int) -> Origin:
        owner = item % len(caches)
        if not caches[owner].read(item):
            return "storage"
        return "memory" if owner == server else "peer"

    return owned
