"""One pass over a loader by native threads.

It is torch's own iterator class underneath, so pinning, samplers, profiler records and tools that
hook it work as ever; what differs is where a minibatch comes from.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data.dataloader import _BaseDataLoaderIter
from torch.utils.data.distributed import DistributedSampler

from coordl import _native
from coordl.delivery.as_torch import Resumed
from coordl.delivery.carried import NOTHING
from coordl.delivery.filled import Filled
from coordl.delivery.history import EpochRecord
from coordl.delivery.position import Position
from coordl.errors import ItemError, item_error
from coordl.fetch.failure import changed_shard, damaged_item, unreadable_item
from coordl.fetch.folder import Folder
from coordl.prep.keyed import keyed_draws
from coordl.prep.vision import prepare_image
from coordl.sources.image_folder import open_item

FETCH_THREADS = 32
# Encoded bytes read ahead of prep: enough for any burst, small beside the minibatches themselves;
# and no more than a share of the memory there is.
READ_AHEAD_BYTES = 256 << 20
READ_AHEAD_SHARE = 1 / 16
# Samples known to be missing and not yet asked for: how deep the storage's queue may be.
READ_AHEAD_SAMPLES = 1024
# Further minibatches looked at with each that is asked for: the depth comes without a pause.
_LOOKED_AT = 4
_NO_WRITES = "Nothing may write to the data set during an epoch."


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
        identities: of the items, where there is one.
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
    identities: Any = None


@dataclass
class _Minibatch:
    """One of the order; without a buffer it is only read ahead."""

    indices: np.ndarray
    rows: np.ndarray
    draws: np.ndarray  # what keys each sample's draws, beside (seed, epoch)
    buffer: Any = None
    ticket: Any = None
    asked: int = 0  # bytes other servers are asked for
    error: Exception | None = None  # raised at its place in the order, not when it was found
    first: int = 0  # position of its first sample in the epoch


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


def read_ahead_bytes() -> int:
    """How much may be read ahead of prep here."""
    allowed = int(_native.memory_limits()["allowed_bytes"] or READ_AHEAD_BYTES)
    return max(1, min(READ_AHEAD_BYTES, int(READ_AHEAD_SHARE * allowed)))


def _end(closing: list[Any], record: EpochRecord) -> None:
    for each in closing:
        each.close()
    record.freeze()


class NativeIterator(Resumed, _BaseDataLoaderIter):  # type: ignore[misc]
    """Minibatches of an image folder, fetched and prepared by native threads.

    Yields [images, labels] as default_collate makes them: images (B, 3, H, W), float32 or uint8,
    private to the consumer and valid as long as any tensor over them lives.

    The threads end when the pass ends, when the iterator dies, or when the interpreter exits.
    """

    # No reference to the loader is kept: with persistent_workers it refers to the iterator, and
    # the two should end when the user lets go, not when the garbage collector comes by.
    def __init__(self, loader: Any, route: Any) -> None:
        self._take(loader._local.resume.begin(loader, native=True))
        super().__init__(loader)
        self._route = route
        # As many minibatches ahead as torch would have; without workers: only the one asked for.
        self._ahead = self._num_workers * max(1, loader.prefetch_factor or 2)
        self._samples = 0  # of the minibatch yielded last
        self._start(loader)

    def _start(self, loader: Any) -> None:
        position = self._position
        epoch: NativeEpoch = loader._native_epoch(self._route, position)
        self._epoch = epoch
        native_pass = epoch.plan.native_pass()
        self._sample_bytes = native_pass.sample_bytes
        self._threads = _native.Workers(
            epoch.items,
            native_pass,
            epoch.tiers,
            max(1, self._num_workers),
            FETCH_THREADS,
            read_ahead_bytes(),
            epoch.form,
            *((1, 0) if epoch.exchange is None else epoch.exchange.worker_options()),
        )
        self._asking = None
        if epoch.exchange is not None:
            self._asking = epoch.exchange.begin(self._threads, epoch.identities)
        position.record.counters = self._threads.counters
        # What the pass ends with, in that order.
        self._closing: list[Any] = [
            each for each in (self._asking, self._threads) if each is not None
        ]
        self._finish = weakref.finalize(self, _end, self._closing, position.record)
        seed, number = int(self._base_seed), position.turn
        if epoch.seed is not None:
            seed, number = epoch.seed, position.epoch
        self._key = (seed & ((1 << 64) - 1), number)
        self._window: deque[_Minibatch] = deque()  # submitted
        self._announced: deque[_Minibatch] = deque()  # after them: only read ahead
        self._looked_at = position.order.consumed()  # of the order, in minibatches
        self._samples_looked_at = position.order.begin.mark.samples
        self._missing = 0  # samples of those that storage has to give
        # How many minibatches of the order may be looked at before torch would. Without workers
        # torch draws one when it is asked for, and so do we.
        early = self._ahead > 0 and draws_alone(self._index_sampler)
        self._early = len(self._index_sampler) - 1 if early else 0
        try:
            self._open(loader)
            while len(self._window) < self._ahead and self._put():
                pass
            self._read_on()
        except BaseException:
            self._finish()
            raise

    def _open(self, loader: Any) -> None:
        """What a pass begins with before its first minibatch is asked for."""

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """The next pass of a loader with persistent_workers; what was not consumed is dropped."""
        self._finish()
        position = loader._local.resume.begin(loader, native=True, turn=self._position.turn + 1)
        position.base_seed(self._base_seed)
        self._take(position)
        super()._reset(loader, first_iter)
        self._start(loader)

    def _next_index(self) -> Any:
        return self._position.order.draw(self._sampler_iter)[1]

    def _announce(self) -> bool:
        """Looks at the next minibatch of the order and has it read; False when there is none."""
        try:
            asked = self._next_index()
        except StopIteration:
            return False
        self._looked_at += 1
        epoch, none = self._epoch, np.empty(0, np.int64)
        try:
            indices, rows = epoch.folder.positions(asked)
        except Exception as error:  # what the sampler gave is no index of the data set
            self._announced.append(_Minibatch(none, none, none, error=error))
            return True
        draws = self._draws(indices)
        ticket = self._threads.ticket(rows, draws, *self._key)
        missing = read = ticket.missing
        asked = 0
        if self._asking is None or not missing:
            self._threads.announce(ticket)
        else:
            asked, read = self._asking.announce(ticket, rows, missing)
        for row in read:
            # Native reads raise no audit event of their own; whoever watches reads wants them.
            sys.audit("open", epoch.folder.path(rows[row]), None, os.O_RDONLY)
        self._missing += len(missing)
        self._announced.append(_Minibatch(indices, rows, draws, ticket=ticket, asked=asked))
        return True

    def _draws(self, indices: np.ndarray) -> np.ndarray:
        """With `seed=` a sample's draws are its index's. Without, its place's in the order: what a
        sampler names twice is drawn twice, and endless samplers go on drawing anew, as in torch."""
        if self._epoch.seed is not None:
            return indices
        first = self._samples_looked_at
        self._samples_looked_at += len(indices)
        return np.arange(first, first + len(indices))

    def _put(self) -> bool:
        """Starts the next minibatch of the order; False when there is none."""
        if not self._finish.alive or not (self._announced or self._announce()):
            return False
        minibatch = self._announced.popleft()
        if minibatch.error is None:
            self._submit(minibatch)
        self._window.append(minibatch)
        return True

    def _submit(self, minibatch: _Minibatch) -> None:
        self._missing -= len(minibatch.ticket.missing)
        minibatch.buffer = self._epoch.pool.take(len(minibatch.rows) * self._sample_bytes)
        self._threads.submit(minibatch.ticket, minibatch.buffer)

    def _read_on(self) -> None:
        for _ in range(_LOOKED_AT):
            if self._looked_at >= self._early or self._missing >= READ_AHEAD_SAMPLES:
                return
            if self._asking is not None and self._asking.waiting_bytes >= READ_AHEAD_BYTES:
                return
            if not self._announce():
                return

    def __next__(self) -> Any:
        start, position = time.perf_counter(), self._position
        try:
            data = super().__next__()
        except StopIteration:
            position.finish()
            raise
        position.history.count(position.record, self._samples, time.perf_counter() - start)
        return data

    def _next_data(self) -> Any:
        while (data := self._next_minibatch()) is NOTHING:
            pass
        if self._pin_memory:
            data = pin_memory(data, self._pin_memory_device)  # type: ignore[no-untyped-call]
        return data

    def _next_minibatch(self) -> Any:
        if not self._window and not self._put():
            self._finish()
            raise StopIteration
        minibatch = self._window[0]
        if minibatch.error is None and not self._wait(minibatch):
            raise RuntimeError(f"DataLoader timed out after {self._timeout} seconds")
        self._window.popleft()
        if self._asking is not None:
            self._asking.consumed(minibatch.asked)
        self._position.took()
        if len(self._window) < self._ahead:
            self._put()
        if self._finish.alive:
            self._read_on()
        if minibatch.error is not None:
            error, minibatch.error = minibatch.error, None
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: the pass must end with the last user
        return self._collate(minibatch)

    def _wait(self, minibatch: _Minibatch) -> bool:
        """Until it is made; False when the loader's timeout ran out."""
        return self._threads.wait(minibatch.ticket, self._timeout)

    def _collate(self, minibatch: _Minibatch) -> Any:
        epoch, plan = self._epoch, self._epoch.plan
        shape = [len(minibatch.rows), *plan.stored_shape]
        images = minibatch.buffer.array(shape, plan.pixel)
        dataset = epoch.folder.dataset
        targets = [epoch.folder.target(row) for row in minibatch.rows.tolist()]
        filled = Filled(epoch.on_error, epoch.folder, minibatch.indices, minibatch.rows, self._key)
        for row, what, errno in minibatch.ticket.exceptions():
            with filled.sample(row):
                images[row] = self._by_the_users_loader(minibatch, row, what, errno)
        if dataset.target_transform is not None:
            for row, drawn in enumerate(minibatch.draws.tolist()):
                if row in filled.instead:
                    continue
                with filled.sample(row), keyed_draws(*self._key, drawn):  # as its crop's are
                    targets[row] = dataset.target_transform(targets[row])
        self._position.record.bad.add(filled.bad)
        self._samples = len(targets) - filled.bad.skipped
        data = filled.collated(plan.tensor_of(images), targets)
        if self._position.content is not None and not filled.bad:
            self._position.content.add(minibatch.indices, data[0])
        return data

    def _by_the_users_loader(
        self, minibatch: _Minibatch, row: int, what: str, errno: int
    ) -> np.ndarray:
        """A sample the native pass left: Pillow decides whether and how it decodes."""
        folder, item = self._epoch.folder, minibatch.rows[row]
        index, path = int(minibatch.indices[row]), folder.path(item)
        if what == "io_error":
            raise unreadable_item(errno, index, path)
        if what == "truncated":
            said = f"{path} ended early or changed while it was read"
            raise ItemError(f"sample {index}: {said}. {_NO_WRITES}", index, path)
        if what == "changed":
            said = changed_shard(path)
            raise ItemError(f"sample {index}: {said}. {_NO_WRITES}", index, path)
        if what == "damaged":
            raise damaged_item(index, folder.name(item), path)
        try:
            image = open_item(minibatch.ticket.item(row))
            return prepare_image(image, self._epoch.plan, *self._key, int(minibatch.draws[row]))
        except Exception as error:
            raise item_error(error, index, folder.name(item)) from error
