"""The rest of an epoch for another number of ranks."""

from __future__ import annotations

import copy
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
    whole = copy.copy(sampler)
    whole.num_replicas, whole.rank = 1, 0
    whole.num_samples = whole.total_size = len(sampler.dataset)
    order = list(whole)
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
