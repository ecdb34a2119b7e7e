"""Recorded minibatches out of worker processes: what delivery takes once all is prepared.

Taking a minibatch from a worker costs the training loop something by itself (a message, mapping its
memory, a copy to the accelerator), however fast prep is. An ingestion block whose minibatches come
that way shows how much, so that it is not taken for a prep stall.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

from dsanalyzer.hooks import subset


class Ready:
    """A map-style data set of `count` whole minibatches, copies of a few recorded ones."""

    def __init__(self, batches: list[Any], count: int) -> None:
        self._batches = batches
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        import torch

        # A copy: a worker's collation makes new memory for each minibatch too.
        return subset.map_tensors(torch.clone, self._batches[index % len(self._batches)])


def opened(loader: Any, batches: list[Any], count: int) -> Iterator[Any] | None:
    """`count` minibatches from workers like the loader's own; they have started when it returns.

    None where delivery is not torch's: no workers, a loader with an iterator of its own (coordl,
    torchdata), `dsanalyzer.wrap`, or minibatches that workers cannot send (on a GPU).
    """
    import torch
    from torch.utils.data import dataloader

    theirs = getattr(type(loader), "_get_iterator", None)
    if theirs is not dataloader.DataLoader._get_iterator or not loader.num_workers:
        return None
    if subset.on_gpu(batches):
        return None
    context = loader.multiprocessing_context or multiprocessing.get_context()
    if context.get_start_method() != "fork":
        # What is sent to a worker moves into shared memory, for this process too: it gets copies.
        batches = [subset.map_tensors(torch.clone, batch) for batch in batches]
    ahead = loader.num_workers * loader.prefetch_factor
    ready: Any = Ready(batches, count + ahead)
    twin = dataloader.DataLoader(
        ready,
        batch_size=None,
        num_workers=loader.num_workers,
        prefetch_factor=loader.prefetch_factor,
        pin_memory=loader.pin_memory,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),  # else it would draw from the job's
    )
    # Not through iter(), which the hooks observe.
    delivered: Iterator[Any] = dataloader._MultiProcessingDataLoaderIter(twin)
    for _ in range(ahead):  # while workers start
        next(delivered)
    return delivered
