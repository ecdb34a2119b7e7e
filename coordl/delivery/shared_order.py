"""The order of an epoch that the members of a group share: known before the epoch begins."""

from __future__ import annotations

import copy
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from coordl.delivery import generators
from coordl.delivery.order import Order

_DRAWN = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
_KNOWN = (*_DRAWN, SequentialSampler, DistributedSampler)


def why_not_shared(loader: Any) -> str:
    """Why other jobs cannot know this loader's order; empty where they can."""
    if type(loader.batch_sampler) is not BatchSampler:
        return f"its batch_sampler is a {type(loader.batch_sampler).__qualname__}, not torch's own"
    sampler = loader.batch_sampler.sampler
    if type(sampler) not in _KNOWN:
        return (
            f"its sampler is a {type(sampler).__qualname__}, which may draw as it goes; the order "
            "of torch's own samplers is known beforehand"
        )
    return ""


def describe_order(loader: Any) -> str:
    """What kind of order it is, for reading and for comparing."""
    sampler = loader.batch_sampler.sampler
    kind = type(sampler).__name__
    if isinstance(sampler, DistributedSampler):
        rank = f"rank {sampler.rank} of {sampler.num_replicas}"
        return f"{kind}, {rank}, shuffle={sampler.shuffle}, seed={sampler.seed}"
    if isinstance(sampler, WeightedRandomSampler):
        weights = blake2b(sampler.weights.numpy().tobytes(), digest_size=6).hexdigest()
        return f"{kind}, replacement={sampler.replacement}, weights {weights}"
    if isinstance(sampler, SubsetRandomSampler):
        subset = np.asarray(sampler.indices, np.int64).tobytes()
        return f"{kind} of {blake2b(subset, digest_size=6).hexdigest()}"
    if isinstance(sampler, RandomSampler):
        return f"{kind}, replacement={sampler.replacement}"
    return kind


def rank_of(loader: Any) -> str:
    """Which rank's samples these are; members of other ranks are another group."""
    sampler = loader.batch_sampler.sampler
    if isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1:
        return f".rank-{sampler.rank}-of-{sampler.num_replicas}"
    return ""


class _Keyed(torch.Generator):
    """One of ours, also in the sampler of a copied or rebuilt loader."""

    def __reduce__(self) -> Any:
        return _Keyed, ()  # it is seeded before each pass

    def __deepcopy__(self, memo: Any) -> _Keyed:
        return _Keyed()


class KeyedOrder:
    """Draws a loader's order from (seed, epoch), unless its sampler has a generator of a user."""

    def key(self, loader: Any, seed: int, epoch: int) -> None:
        """Before a pass: has the sampler draw as that key says."""
        if not self.draws(loader):
            return
        sampler = loader.batch_sampler.sampler
        name = b"coordl.order %d %d" % (seed, epoch)
        drawn = int.from_bytes(blake2b(name, digest_size=8).digest(), "little", signed=True)
        sampler.generator = _Keyed()
        sampler.generator.manual_seed(drawn)

    def draws(self, loader: Any) -> bool:
        """Whether the order is random, and none of the user's."""
        sampler = loader.batch_sampler.sampler
        own = getattr(sampler, "generator", None)
        return type(sampler) in _DRAWN and (own is None or isinstance(own, _Keyed))


def whole_order(order: Order) -> np.ndarray:
    """Every index of the epoch, int64, those before the pass's begin included, from the first on
    wherever the pass began; nothing is drawn for it."""
    sampler = copy.copy(order.sampler.sampler)
    for role, own in order.own_generators.items():
        if own is getattr(sampler, "generator", None):
            state = order.starts.get(role) or generators.read(own)
            sampler.generator = torch.Generator()
            generators.write(sampler.generator, state)
    return np.fromiter(sampler, np.int64, count=len(sampler))
