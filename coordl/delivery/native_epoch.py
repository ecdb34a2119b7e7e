"""What native threads need for a pass over a data set, and a minibatch on its way through them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from coordl import _native
from coordl.delivery.position import Position
from coordl.fetch.folder import Folder

FETCH_THREADS = 32
# Encoded bytes read ahead of prep: enough for any burst, small beside the minibatches themselves;
# and no more than a share of the memory there is.
READ_AHEAD_BYTES = 256 << 20
READ_AHEAD_SHARE = 1 / 16
_OF_STORAGE = ("io_error", "truncated", "changed", "damaged")


def read_ahead_bytes() -> int:
    """How much may be read ahead of prep here."""
    allowed = int(_native.memory_limits()["allowed_bytes"] or READ_AHEAD_BYTES)
    return max(1, min(READ_AHEAD_BYTES, int(READ_AHEAD_SHARE * allowed)))


def pinned_memory(size: int) -> torch.Tensor:
    """So many bytes of it, uint8."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


@dataclass(frozen=True)
class NativeEpoch:
    """What the native threads need for one pass.

    Attributes:
        seed: keys the draws; None: torch's base seed of this iterator does.
        tiers: the cache, or None.
        form: in which items are admitted to it, or "auto".
        pool: memory of minibatches; outlives the loader while a minibatch lives.
        on_error: the loader's.
        exchange: other servers, which are asked for what the cache lacks; or None.
        files: the items once more, with their identities, where there is one.
        pinned: whether minibatches lie in page-locked memory, for pin_memory=True.
    """

    folder: Folder
    plan: Any
    items: _native.ItemTable
    tiers: Any
    form: str
    pool: _native.BufferPool
    seed: int | None
    position: Position
    on_error: Any
    exchange: Any = None
    files: Any = None
    pinned: bool = False

    @cached_property
    def sample_bytes(self) -> int:
        """What a sample takes in a minibatch."""
        return int(self.plan.native_pass().sample_bytes)

    def provide(self, minibatch: Minibatch) -> _native.Buffer:
        """Gives it memory for its samples, its buffer.

        Pinned memory is torch's own, which is a ring already: a block is given out again once no
        tensor lies in it and no copy queued from it is still to come, for torch notes the streams
        that read it. A ring of ours could not know them.
        """
        size = len(minibatch.rows) * self.sample_bytes
        if self.pinned:
            minibatch.memory = pinned_memory(size)
            buffer = _native.Buffer(minibatch.memory.data_ptr(), size, minibatch.memory)
        else:
            buffer = self.pool.take(size)
        minibatch.buffer = buffer
        return buffer

    def threads(self, prep_threads: int) -> _native.Workers:
        """Starts them."""
        return _native.Workers(
            self.items,
            self.plan.native_pass(),
            self.tiers,
            max(1, prep_threads),
            FETCH_THREADS,
            read_ahead_bytes(),
            self.form,
            *((1, 0) if self.exchange is None else self.exchange.worker_options()),
        )

    def key(self, base_seed: int, later: int = 0) -> tuple[int, int]:
        """(seed, epoch) of the draws of this pass, or of one of the same iterator so much later."""
        seed, number = self.seed, self.position.epoch + later
        if seed is None:
            seed, number = base_seed, self.position.turn + later
        return seed & ((1 << 64) - 1), number

    def audit(self, rows: np.ndarray) -> None:
        """Native reads raise no audit event of their own; whoever watches reads wants them."""
        for row in rows:
            sys.audit("open", self.folder.path(row), None, os.O_RDONLY)


@dataclass
class Minibatch:
    """One of the order; without a buffer it is only read ahead."""

    indices: np.ndarray
    rows: np.ndarray
    draws: np.ndarray  # what keys each sample's draws, beside (seed, epoch)
    buffer: Any = None
    memory: torch.Tensor | None = None  # what the buffer is over, where that is torch's
    ticket: Any = None
    asked: int = 0  # bytes other servers are asked for
    error: Exception | None = None  # raised at its place in the order, not when it was found
    first: int = 0  # position of its first sample in the epoch
    foreseen: bool = False  # made before the pass began

    def pixels(self, plan: Any) -> tuple[np.ndarray, torch.Tensor]:
        """Its images (B, ...) as the pass wrote them, and as the tensor over the same memory."""
        stored = self.buffer.array([len(self.rows), *plan.stored_shape], plan.pixel)
        # Of torch's memory a tensor of torch's, by whose storage it knows the block.
        return stored, plan.tensor_of(stored, self.memory)

    def failed_reads(self) -> bool:
        """Whether storage is why a sample of it is missing; once it is waited for."""
        return any(what in _OF_STORAGE for _, what, _ in self.ticket.exceptions())
