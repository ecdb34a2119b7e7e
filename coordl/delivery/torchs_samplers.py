"""What is known of torch's own samplers: when they draw, and what they would draw next."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

_LONGEST_ORDER = 1 << 18  # indices: to draw a longer one a second time stalls the loop


def draws_alone(sampler: Any) -> bool:
    """Whether nobody sees it when the sampler is drawn from earlier than torch would, but its end.

    True of torch's own samplers where they draw all they need at the first index, or from a
    generator of their own. (RandomSampler draws once more at its end, from a generator that may be
    the user's: that draw must come when torch's would, or a pass that is left early changes the
    order of the next.) Any other may look at what happened in the meantime.
    """
    kind = type(sampler)
    if kind is BatchSampler:
        return draws_alone(sampler.sampler)
    if kind is RandomSampler:
        at_once = not sampler.replacement and sampler.num_samples <= len(sampler.data_source)
        return at_once or sampler.generator is None
    return kind in (
        SequentialSampler,
        SubsetRandomSampler,
        WeightedRandomSampler,
        DistributedSampler,
    )


def order_to_come(sampler: Any) -> Iterator[list[int]] | None:
    """The minibatches a batch sampler would give next; None where that cannot be foreseen.

    Neither it nor any generator is drawn from.
    """
    drawing = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
    known = (*drawing, SequentialSampler, DistributedSampler)
    if type(sampler) is not BatchSampler or type(sampler.sampler) not in known:
        return None
    if len(sampler.sampler) > _LONGEST_ORDER:  # type: ignore[arg-type]
        return None
    inner: Any = copy.copy(sampler.sampler)
    if type(inner) in drawing:
        drawn = torch.Generator()
        own = torch.default_generator if inner.generator is None else inner.generator
        if own.device.type != "cpu":
            return None
        drawn.set_state(own.get_state())
        if type(inner) is RandomSampler and inner.generator is None:
            # It has a generator for each pass, of a seed it draws from torch's.
            drawn.manual_seed(int(torch.empty((), dtype=torch.int64).random_(generator=drawn)))
        inner.generator = drawn
    elif type(inner) is DistributedSampler:
        inner.set_epoch(inner.epoch + 1)
    return iter(BatchSampler(inner, sampler.batch_size, sampler.drop_last))
