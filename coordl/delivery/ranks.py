"""An epoch's samples among ranks: its rest for another number of them, and each sample once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch.utils.data.distributed import DistributedSampler


def is_elastic(sampler: Any) -> bool:
    """Whether another number of ranks can share the rest of its epoch: torch's own sampler, whose
    order does not depend on the number of ranks. A subclass may do anything."""
    return type(sampler) is DistributedSampler


def rest_of_epoch(sampler: Any, consumed: int) -> Iterator[int]:
    """This rank's indices of what is left of the epoch after all ranks took `consumed` samples.

    The ranks take turns, as in a whole epoch. So that they get equally many, the order's first
    samples follow its end once more, or (drop_last) its last ones are left out: as torch does it
    for a whole epoch, and with the same samples where the number of ranks is the same.

    Args:
        sampler: torch's DistributedSampler.
        consumed: samples at the beginning of the epoch's order.
    """
    order = _order(sampler)
    left = order[consumed:]
    if not left:
        return iter(())
    if sampler.drop_last:
        each = len(left) // sampler.num_replicas
    else:
        each = math.ceil(len(left) / sampler.num_replicas)
        missing = each * sampler.num_replicas - len(left)
        left += (order * math.ceil(missing / len(order)))[:missing]
    return iter(left[sampler.rank : each * sampler.num_replicas : sampler.num_replicas])


def _order(sampler: DistributedSampler) -> list[int]:
    """The epoch's, as one rank alone has it from torch."""
    whole: Any = DistributedSampler(sampler.dataset, 1, 0, sampler.shuffle, sampler.seed)
    whole.epoch = sampler.epoch
    return list(whole)


class EvaluationSampler(DistributedSampler):
    """torch's DistributedSampler for evaluation: each sample once over all ranks, none repeated.

    Ranks take turns through the order, so some have one sample more than others; with fewer samples
    than ranks, some have none. A forward pass through DistributedDataParallel waits for all ranks:
    evaluate the module inside it (`model.module`), or enter `model.join()`.

    Args:
        dataset: what has a length.
        num_replicas, rank: of the process group, by default.
        shuffle: in the order torch's sampler has for the same seed and epoch (set_epoch()).
        seed: of that order, the same in all ranks.

    Raises:
        ValueError: no such rank.
        RuntimeError: no process group, and its figures are not given.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle, seed)
        self.total_size = len(dataset)
        self.num_samples = len(range(self.rank, self.total_size, self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        return iter(_order(self)[self.rank :: self.num_replicas])
