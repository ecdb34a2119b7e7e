"""One pass over a loader by native threads.

It is torch's own iterator class underneath, so pinning, samplers, profiler records and tools that
hook it work as ever; what differs is where a minibatch comes from.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from typing import Any

import numpy as np
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data.dataloader import _BaseDataLoaderIter

from coordl.delivery.as_torch import Resumed
from coordl.delivery.carried import NOTHING
from coordl.delivery.filled import Filled
from coordl.delivery.foreseen import Foreseen
from coordl.delivery.history import EpochRecord
from coordl.delivery.native_epoch import READ_AHEAD_BYTES, Minibatch, NativeEpoch
from coordl.delivery.torchs_samplers import draws_alone, order_to_come
from coordl.errors import ItemError, item_error
from coordl.fetch.failure import changed_shard, damaged_item, unreadable_item
from coordl.prep.keyed import keyed_draws
from coordl.prep.vision import prepare_image
from coordl.sources.image_folder import open_item

# Samples known to be missing and not yet asked for: how deep the storage's queue may be.
READ_AHEAD_SAMPLES = 1024
# Further minibatches looked at with each that is asked for: the depth comes without a pause.
_LOOKED_AT = 4
_AT_ONCE_S = 1e-9
_WRONG_AT_MOST = 2  # then the script draws from that generator, and will go on doing so
_NO_WRITES = "Nothing may write to the data set during an epoch."


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
        if loader.num_workers:  # what torch's workers want of it
            assert loader.prefetch_factor > 0, "prefetch_factor must be greater than 0"
        self._take(loader._local.resume.begin(loader, native=True))
        super().__init__(loader)
        self._route = route
        # As many minibatches ahead as torch would have; without workers: only the one asked for.
        self._ahead = self._num_workers * max(1, loader.prefetch_factor or 2)
        self._samples = 0  # of the minibatch yielded last
        self._foreseen: Foreseen | None = None  # of the pass to come
        self._wrong = 0  # passes in sequence that came otherwise
        self._start(loader)

    def _start(self, loader: Any) -> None:
        position = self._position
        epoch: NativeEpoch = loader._native_epoch(self._route, position, self._pin_memory)
        self._epoch = epoch
        self._key = epoch.key(int(self._base_seed))
        self._made = self._foreseen_for(epoch)
        self._threads = self._made.threads if self._made else epoch.threads(self._num_workers)
        self._asking = None
        if epoch.exchange is not None:
            self._asking = epoch.exchange.begin(self._threads, epoch.files)
        position.record.counters = self._threads.counters
        # What the pass ends with, in that order.
        self._closing: list[Any] = [
            each for each in (self._asking, self._threads) if each is not None
        ]
        self._finish = weakref.finalize(self, _end, self._closing, position.record)
        self._window: deque[Minibatch] = deque()  # submitted
        self._announced: deque[Minibatch] = deque()  # after them: only read ahead
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
            self._announced.append(Minibatch(none, none, none, error=error))
            return True
        draws = self._draws(indices)
        if self._made is not None and (made := self._made.give(rows, draws)) is not None:
            self._announced.append(made)
            return True
        ticket = self._threads.ticket(rows, draws, *self._key)
        missing = read = ticket.missing
        asked = 0
        if self._asking is None or not missing:
            self._threads.announce(ticket)
        else:
            asked, read = self._asking.announce(ticket, rows, missing)
        epoch.audit(rows[read])
        self._missing += len(missing)
        self._announced.append(Minibatch(indices, rows, draws, ticket=ticket, asked=asked))
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

    def _submit(self, minibatch: Minibatch) -> None:
        if minibatch.buffer is not None:
            return  # it was foreseen
        self._missing -= len(minibatch.ticket.missing)
        self._threads.submit(minibatch.ticket, self._epoch.provide(minibatch))

    def _make_again(self, minibatch: Minibatch) -> None:
        """What could not be read in the tail of the last pass may be there by now."""
        minibatch.foreseen = False  # once: what fails now is the pass's own
        minibatch.ticket = self._threads.ticket(minibatch.rows, minibatch.draws, *self._key)
        self._threads.announce(minibatch.ticket)
        self._epoch.audit(minibatch.rows[minibatch.ticket.missing])
        self._threads.submit(minibatch.ticket, minibatch.buffer)

    def _read_on(self) -> None:
        for _ in range(_LOOKED_AT):
            if self._looked_at >= self._early or self._missing >= READ_AHEAD_SAMPLES:
                return
            if self._asking is not None and self._asking.waiting_bytes >= READ_AHEAD_BYTES:
                return
            if not self._announce():
                return

    # -- beyond the end of the pass ----------------------------------------------------------

    def _look_beyond(self) -> None:
        """With persistent_workers, once all minibatches of this pass are made: begins the next."""
        lone = self._persistent_workers and self._asking is None
        if not lone or self._wrong >= _WRONG_AT_MOST:
            return
        try:
            self._begin_next()
        except Exception:  # no guess is worth a minibatch of this pass
            self._foreseen, self._wrong = None, _WRONG_AT_MOST

    def _begin_next(self) -> None:
        if self._foreseen is None:
            tickets = [each.ticket for each in self._window if each.ticket is not None]
            if tickets and not self._threads.wait(tickets[-1], _AT_ONCE_S):
                return
            order = order_to_come(self._index_sampler)
            if order is None:
                return
            key = self._epoch.key(int(self._base_seed), later=1)
            self._foreseen = Foreseen(self._epoch, key, order, self._num_workers)
        while len(self._window) + len(self._foreseen) < self._ahead and self._foreseen.make():
            pass

    def _foreseen_for(self, epoch: NativeEpoch) -> Foreseen | None:
        """What was made for the pass that begins; None where nothing was, or for another order."""
        foreseen, self._foreseen = self._foreseen, None
        if foreseen is None:
            return None
        first = self._position.order.first_minibatch(self._sampler_iter)
        if foreseen.is_for(epoch, self._key, first):
            self._wrong = 0
            return foreseen
        self._wrong += 1
        foreseen.close()
        return None

    # -- what is yielded ---------------------------------------------------------------------

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
        if self._pin_memory:  # the images are: what lies beside them
            data = pin_memory(data, self._pin_memory_device)  # type: ignore[no-untyped-call]
        return data

    def _next_minibatch(self) -> Any:
        if not self._window and not self._put():
            self._finish()
            raise StopIteration
        minibatch = self._window[0]
        ready = minibatch.error is not None or self._wait(minibatch)
        if ready and minibatch.foreseen and minibatch.failed_reads():
            self._make_again(minibatch)
            ready = self._wait(minibatch)
        if not ready:
            raise RuntimeError(f"DataLoader timed out after {self._timeout} seconds")
        self._window.popleft()
        if self._asking is not None:
            self._asking.consumed(minibatch.asked)
        self._position.took()
        if len(self._window) < self._ahead and not self._put() and self._finish.alive:
            self._look_beyond()
        if self._finish.alive:
            self._read_on()
        if minibatch.error is not None:
            error, minibatch.error = minibatch.error, None
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: the pass must end with the last user
        return self._collate(minibatch)

    def _wait(self, minibatch: Minibatch) -> bool:
        """Until it is made; False when the loader's timeout ran out."""
        return self._threads.wait(minibatch.ticket, self._timeout)

    def _collate(self, minibatch: Minibatch) -> Any:
        epoch, plan = self._epoch, self._epoch.plan
        stored, images = minibatch.pixels(plan)
        dataset = epoch.folder.dataset
        targets = [epoch.folder.target(row) for row in minibatch.rows.tolist()]
        filled = Filled(epoch.on_error, epoch.folder, minibatch.indices, minibatch.rows, self._key)
        for row, what, errno in minibatch.ticket.exceptions():
            with filled.sample(row):
                stored[row] = self._by_the_users_loader(minibatch, row, what, errno)
        if dataset.target_transform is not None:
            for row, drawn in enumerate(minibatch.draws.tolist()):
                if row in filled.instead:
                    continue
                with filled.sample(row), keyed_draws(*self._key, drawn):  # as its crop's are
                    targets[row] = dataset.target_transform(targets[row])
        self._position.record.bad.add(filled.bad)
        self._samples = len(targets) - filled.bad.skipped
        data = filled.collated(images, targets)
        if self._position.content is not None and not filled.bad:
            self._position.content.add(minibatch.indices, data[0])
        return data

    def _by_the_users_loader(
        self, minibatch: Minibatch, row: int, what: str, errno: int
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
