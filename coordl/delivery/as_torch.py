"""One pass over a loader as torch does it: its own iterators, their yields counted and keyed."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sized
from typing import Any, NamedTuple

from torch._utils import ExceptionWrapper
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

from coordl.delivery.carried import NOTHING, Carried
from coordl.delivery.position import Position
from coordl.delivery.stateful import Stream, is_stateful
from coordl.delivery.tended import FROM_INIT, Tended
from coordl.staging.iterator import StagedWorkers
from coordl.staging.shared_samples import Place


class Resumed:
    """What an iterator of torch's does to begin where a state says, and to say where it is."""

    _position: Position
    _sampler_iter: Iterator[Any]

    def _take(self, position: Position) -> None:
        self._position = position
        settle = weakref.WeakMethod(self._settle)
        position.settle = lambda: (settle() or _nothing)()

    def _settle(self) -> None:
        """Draws the first minibatch and hears each worker once, if that was not done."""
        self._position.order.start(self._sampler_iter)

    @property
    def _base_seed(self) -> int:
        return self._seed

    @_base_seed.setter
    def _base_seed(self, drawn: int) -> None:  # torch's constructor draws it
        self._seed = self._position.base_seed(drawn)


def _nothing() -> None:
    pass


class _Counted(Resumed):
    """Books what an iterator of torch's yields; hands keyed data sets their epoch."""

    _auto_collation: bool
    _next_minibatch: Callable[[], Any]  # that is booked, and of which something is left
    _finish: Any = None

    def __init__(self, view: Any, loader: Any, source: Any) -> None:
        """`view` is the loader over the data set to read; `source` counts reads here, or None."""
        self._source = source
        # Before torch's constructor: with workers it already asks for the first indices.
        self._begin(loader)
        super().__init__(view)  # type: ignore[call-arg]

    def _begin(self, loader: Any) -> None:
        turn = 0
        if self._finish is not None:  # the former pass of persistent workers
            self._finish()
            turn = self._position.turn + 1
        position, self._keyed, self._shares = loader._python_epoch(self._source, turn)
        if turn:
            position.base_seed(self._base_seed)
        self._take(position)
        self._finish = weakref.finalize(self, position.record.freeze)
        self._size = 0  # of the minibatch yielded last

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        if not first_iter:
            self._begin(loader)
        super()._reset(loader, first_iter)  # type: ignore[misc]

    def _addressed(self, index: Any, number: int, replay: bool) -> Any:
        """What the data set is asked for: with the epoch, where it is keyed by it."""
        position, many = self._position, self._auto_collation
        if self._keyed:
            epoch, first = position.epoch, position.order.first
            if self._shares:  # and then there are minibatches
                first += position.order.begin.turned
                index = [Place.of(epoch, one, first + at) for at, one in enumerate(index)]
            else:
                index = [(epoch, one) for one in index] if many else (epoch, index)
        if position.by_state:
            return position.asked(index if many else [index], number, replay)
        return index

    def _unpacked(self, data: Any, size: int) -> Any:
        """The minibatch in what was made; books samples that were left out or replaced."""
        self._size = size
        if type(data) is not Carried:
            return data
        if data.bad is not None:
            self._position.record.bad.add(data.bad)
            self._size -= data.bad.skipped
        return data.data

    # Not in __next__: torch's warnings point at who called that.
    def _next_data(self) -> Any:
        start, position = time.perf_counter(), self._position
        try:
            data = self._next_minibatch()
        except StopIteration:
            position.finish()
            raise
        position.history.count(position.record, self._size, time.perf_counter() - start)
        return data

    def _torchs_next(self) -> Any:
        return super()._next_data()  # type: ignore[misc]

    def _samples_in(self, index: Any) -> int:
        return len(index) if self._auto_collation and isinstance(index, Sized) else 1


class PythonIterator(_Counted, _SingleProcessDataLoaderIter):  # type: ignore[misc]
    """torch's iterator without workers."""

    _number: int | None = None  # of the minibatch that was begun and has not come

    def __init__(self, view: Any, loader: Any, source: Any) -> None:
        super().__init__(view, loader, source)
        tended = view.dataset
        if isinstance(tended, Stream):
            self._position.live = tended.state if tended.tracked else None
        elif isinstance(tended, Tended) and is_stateful(loader.dataset):
            self._position.live = tended.state

    def _next_index(self) -> Any:
        if self._number is not None:  # Ctrl-C broke into it, and the script goes on without it
            self._position.took(self._number)
        self._number, index, replay = self._position.order.draw(self._sampler_iter)
        self._asked = self._samples_in(index)
        return self._addressed(index, self._number, replay)

    def _next_minibatch(self) -> Any:
        position = self._position
        while True:
            try:
                data = self._torchs_next()
            except StopIteration:
                raise
            except Exception:  # who goes on after it gets the next one, as ever
                self._came()
                raise
            self._came()
            if position.tally is not None:
                position.tally.yielded(0, None, self._asked)
            data = self._unpacked(data, self._asked)
            if data is not NOTHING:
                return data

    def _came(self) -> None:
        number, self._number = self._number, None
        self._position.took(number)


class _Sent(NamedTuple):
    """A minibatch workers were asked for: its number in the order, samples, for the state alone."""

    number: int
    size: int
    replay: bool


class _Given(NamedTuple):
    """One that came back."""

    sent: _Sent
    worker: int
    data: Any
    error: Exception | None = None


def _let_go(error: Exception) -> bool:
    """Empties the frame of torch's that raised what a worker sent; whether one did.

    It holds the error, and the error, by its frames, the iterator: only the garbage collector would
    end that one's workers, and takes 5 s for each.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not ExceptionWrapper.reraise.__code__:
        trace = trace.tb_next
    if trace is None:
        return False
    trace.tb_frame.clear()
    return True


class PythonWorkersIterator(_Counted, StagedWorkers):  # type: ignore[misc]
    """torch's iterator with worker processes, tensors coming in slots."""

    def __init__(self, view: Any, loader: Any, source: Any) -> None:
        super().__init__(view, loader, source)
        self._hear_all(loader)

    def _begin(self, loader: Any) -> None:
        super()._begin(loader)
        self._sent: dict[int, _Sent] = {}  # by torch's number
        self._early: deque[_Given] = deque()  # came before it was asked for
        said = self._position.tally is not None
        self._unheard = set(range(loader.num_workers)) if said else set()
        self._listening = False
        self._first_worker = self._position.first_worker
        # Where not every minibatch brings a state, persistent workers say at the end what they
        # begin the next pass with.
        last = self._position.by_state and self._position.every != 1 and loader.persistent_workers
        self._last_words = loader.num_workers if last else 0

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        super()._reset(loader, first_iter)
        if not first_iter:
            self._hear_all(loader)

    def _hear_all(self, loader: Any) -> None:
        if is_stateful(loader.dataset):  # as torchdata: what fails at the start fails in iter()
            self._listen()

    def _next_index(self) -> Any:
        try:
            number, index, replay = self._position.order.draw(self._sampler_iter)
        except StopIteration:
            if not self._last_words:
                raise
            self._last_words -= 1
            self._sent[self._send_idx] = _Sent(-1, 0, True)
            return self._position.asked([], -1, replay=True)
        while self._first_worker:
            next(self._worker_queue_idx_cycle)
            self._first_worker -= 1
        size = self._samples_in(index)
        self._sent[self._send_idx] = _Sent(number, size, replay)
        return self._addressed(index, number, replay)

    def _process_data(self, data: Any, worker: int) -> _Given:
        # torch took it off its table just now. (Of an iterable data set, all sizes are the same.)
        sent = self._sent.pop(min(key for key in self._sent if key not in self._task_info))
        try:
            data = super()._process_data(data, worker)  # type: ignore[no-untyped-call]
        except Exception as error:
            sent_by_worker = _let_go(error)
            self._unheard.discard(worker)
            if self._listening and FROM_INIT not in str(error):
                kept = error.with_traceback(None) if sent_by_worker else error
                return _Given(sent, worker, NOTHING, kept)
            self._position.took(sent.number)
            raise
        self._unheard.discard(worker)
        return _Given(sent, worker, data)

    def _next_minibatch(self) -> Any:
        while True:
            data = self._booked(self._early.popleft() if self._early else self._next_given())
            if data is not NOTHING:
                return data

    def _next_given(self) -> _Given:
        given: _Given = self._torchs_next()
        return given

    def _booked(self, given: _Given) -> Any:
        (number, size, replay), position = given.sent, self._position
        carried = given.data if type(given.data) is Carried else None
        if position.tally is not None and given.error is None:
            position.tally.yielded(given.worker, carried, size)
        data = self._unpacked(given.data, size)
        if not replay and not (position.iterable and data is NOTHING):
            position.took(number)
        if given.error is not None:
            try:
                raise given.error
            finally:
                del given  # as in _process_data
        return NOTHING if replay else data

    def _settle(self) -> None:
        super()._settle()
        self._listen()
        tally = self._position.tally
        if tally is not None and self._position.iterable:
            waited_for = {info[0] for info in self._task_info.values()}
            tally.ended = [
                not active and worker not in waited_for
                for worker, active in enumerate(self._workers_status)
            ]

    def _listen(self) -> None:
        """Waits for the first word of each worker that has yet to speak: it says its state."""
        self._listening = True
        try:
            while any(self._workers_status[worker] for worker in self._unheard):
                given = self._next_given()
                self._early.append(given)
                if type(given.data) is Carried and self._position.tally is not None:
                    self._position.tally.heard_first(given.worker, given.data)
        except StopIteration:
            pass
        finally:
            self._listening = False
