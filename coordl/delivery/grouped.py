"""One pass over a loader whose samples a group prepares together."""

from __future__ import annotations

from typing import Any

import numpy as np

from coordl import _native
from coordl.cores import usable_cores
from coordl.delivery.native import NativeIterator
from coordl.delivery.native_epoch import Minibatch
from coordl.delivery.shared_order import whole_order
from coordl.staging import group as groups


class GroupIterator(NativeIterator):
    """Minibatches as a lone loader of the same seed gives them, private to the consumer as there;
    each sample comes out of the group's ring, or is prepared here, for all members or for this."""

    def _open(self, loader: Any) -> None:
        group, position, epoch = loader._local.joined.group, self._position, self._epoch
        self._feed: _native.Feed | None = None
        order = position.order
        if order.begin.rank_base is not None:
            return  # the rest of an epoch for another number of ranks is nobody else's
        indices, rows = epoch.folder.positions(whole_order(order))
        group.agree(position.epoch, indices)
        self._rows = np.roll(rows, -order.begin.turned)  # as they come
        self._feed = _native.Feed(
            group.ring,
            self._threads,
            np.ascontiguousarray(rows),
            np.ascontiguousarray(indices),
            self._key[0],
            position.epoch,
            max(1, self._num_workers),
            usable_cores(),
            groups.PATIENCE_S,
            None if epoch.pinned else epoch.pool,
        )
        self._closing.insert(0, self._feed)
        position.record.shared = self._feed.counts

    def _announce(self) -> bool:
        if self._feed is None:
            return super()._announce()
        try:
            asked = self._next_index()
        except StopIteration:
            return False
        none = np.empty(0, np.int64)
        try:
            indices, rows = self._epoch.folder.positions(asked)
        except Exception as error:  # what the sampler gave is no index of the data set
            self._announced.append(Minibatch(none, none, none, error=error))
            return True
        first = self._position.order.first
        self._announced.append(Minibatch(indices, rows, self._draws(indices), first=first))
        return True

    def _submit(self, minibatch: Minibatch) -> None:
        if self._feed is None:
            return super()._submit(minibatch)
        first, count, epoch = minibatch.first, len(minibatch.rows), self._epoch
        if np.array_equal(self._rows[first : first + count], minibatch.rows):
            place = (first + self._position.order.begin.turned) % len(self._rows)
            # Pages of the ring are not page-locked.
            buffer = epoch.provide(minibatch) if epoch.pinned else None
            minibatch.ticket = self._feed.put(place, count, buffer)
            return
        # Not what its sampler said it would draw: the others cannot know these samples.
        minibatch.ticket = self._threads.ticket(minibatch.rows, minibatch.draws, *self._key)
        self._threads.submit(minibatch.ticket, epoch.provide(minibatch))

    def _look_beyond(self) -> None:
        """The ring holds what a member that is ahead made of the next epoch."""

    def _read_on(self) -> None:
        if self._feed is None:
            super()._read_on()  # else what the ring lacks is read as it is claimed

    def _wait(self, minibatch: Minibatch) -> bool:
        if isinstance(minibatch.ticket, _native.Portion):
            assert self._feed is not None
            ready = self._feed.wait(minibatch.ticket, self._timeout)
            if ready and minibatch.buffer is None:
                minibatch.buffer = minibatch.ticket.memory()
            return ready
        return super()._wait(minibatch)
