"""Proof that an epoch was what it should be: each sample once, in the order of its sampler."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from coordl.delivery.content import Content
from coordl.delivery.position import Position
from coordl.delivery.shared_order import whole_order
from coordl.errors import GroupError


def verify(position: Position | None, content: Content | None) -> dict[str, Any]:
    """What a loader's verify_epoch() returns.

    Raises:
        GroupError: the pass has not ended, or what was yielded is not what the order says.
    """
    if position is None or not position.finished:
        raise GroupError("no epoch has ended: verify_epoch() is for after its last minibatch")
    order = position.order
    if order.begin.rank_base is not None:
        raise GroupError("the rest of an epoch for another number of ranks cannot be proved")
    everything, begin, mark = whole_order(order), order.begin, order.mark
    expected = np.roll(everything, -begin.turned)
    if order.sampler.drop_last:
        left = (len(expected) - begin.mark.samples) % order.sampler.batch_size
        expected = expected[: len(expected) - left]
    digest = _digest(expected)
    if (mark.samples, mark.digest) != (len(expected), digest):
        raise GroupError(
            f"epoch {position.epoch} yielded {mark.samples:,} samples in an order of digest "
            f"{mark.digest:08x}, and its sampler has {len(expected):,} of digest {digest:08x}"
        )
    whole = content is not None and begin.mark.samples == 0 and content.samples == len(expected)
    return {
        "epoch": position.epoch,
        "samples": len(expected),
        "distinct": len(np.unique(expected)),
        "began_at": begin.turned,
        # From the epoch's first sample on: the same for all jobs that yielded the same samples.
        "order": f"{_digest(_in_place(everything, begin.turned, len(expected))):08x}",
        "content": f"{content.digest:016x}" if whole and content is not None else None,
    }


def _in_place(order: np.ndarray, turned: int, count: int) -> np.ndarray:
    """Of `order`, turned by so many, the first `count`; in the places they had before."""
    left = (turned + np.arange(count, len(order))) % len(order)
    return np.delete(order, left)


def _digest(indices: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(indices).tobytes())
