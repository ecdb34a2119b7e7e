"""Data sets, iterators and samplers that keep a state of their own, by torchdata's protocol: an
object with state_dict() and load_state_dict(). torchdata itself is not needed.

The states of worker processes travel to the loader beside their minibatches, pickled at once: what
a data set changes afterwards does not change them.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.utils.data

from coordl.delivery.carried import NOTHING, Carried
from coordl.errors import StateError
from coordl.fetch.served import ServedIterator
from coordl.staging.around import AroundCollate

_END = object()  # within a worker: its samples end here


def is_stateful(thing: Any) -> bool:
    """Whether it follows the protocol. Methods of those names that want arguments do not, nor do
    modules, whose state is parameters and no place in the data."""
    state, load = (getattr(thing, name, None) for name in ("state_dict", "load_state_dict"))
    if not callable(state) or not callable(load) or isinstance(thing, torch.nn.Module):
        return False
    try:
        inspect.signature(state).bind()
    except (TypeError, ValueError):
        return False
    return True


@dataclass(frozen=True)
class NoState:
    """In place of a state that could not be taken: an error to who asks for it, to nobody else."""

    why: str


def pickled(take: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps(take())
    except Exception as error:  # of any class: the user's method, or pickle
        return pickle.dumps(NoState(f"{type(error).__name__}: {error}"))


def state_of(thing: Any) -> Any:
    return thing.state_dict() if is_stateful(thing) else None


class Stream(torch.utils.data.IterableDataset):
    """An iterable data set whose place can be kept and found again.

    Args:
        dataset: what to iterate: the user's, or it with its opens served.
        own: the user's data set.
        saved: by worker, what to go on from.
        again: that is the end of a pass, and the next one begins.
        in_workers: what it yields is collated by StreamCollate, in a worker.
    """

    def __init__(
        self,
        dataset: Any,
        own: Any,
        saved: dict[int, dict[str, Any]],
        again: bool,
        in_workers: bool,
    ) -> None:
        self.dataset = dataset
        self.own = own
        self.saved = saved
        self.again = again
        self.in_workers = in_workers
        self.samples = 0  # given in this pass
        self.minibatches = 0
        self.ended = False
        self.tracked = False
        self.before: bytes | None = None
        self._iterator: Any = None

    def __repr__(self) -> str:
        return repr(self.own)  # torch's warnings name the data set

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        saved, self.saved = self.saved.get(0 if info is None else info.id), {}
        self.samples = self.minibatches = 0
        self.ended = False
        source = self._begin() if saved is None else self._restored(saved)
        self.tracked = is_stateful(self.own) or is_stateful(self._iterator)
        if not self.in_workers or not self.tracked:
            return source
        self.before = self.snapshot()
        return _Tracked(self, source)

    def _begin(self) -> Iterator[Any]:
        source: Iterator[Any] = iter(self.dataset)
        self._iterator = source.iterator if isinstance(source, ServedIterator) else source
        return source

    def _restored(self, saved: dict[str, Any]) -> Iterator[Any]:
        fetcher = saved["fetcher_state"] or {}
        if saved["dataset_state"] is not None and is_stateful(self.own):
            self.own.load_state_dict(saved["dataset_state"])
        source = self._begin()
        state = fetcher.get("dataset_iter_state")
        if state is not None and is_stateful(self._iterator):
            self._iterator.load_state_dict(state)
        if self.again:
            return source if state is None else self._begin()
        if fetcher.get("fetcher_ended") and (is_stateful(self.own) or is_stateful(self._iterator)):
            self.ended = True
            return iter(())
        self.samples, self.minibatches = saved["given"], saved["given_minibatches"]
        for _ in range(self.samples - saved["at"]):
            if next(source, _END) is _END:
                self.ended = True
                break
        return source

    def state(self) -> dict[str, Any]:
        """Of data set and iterator, in torchdata's words, and the place in the pass."""
        itself = self._iterator is self.own  # then its state is kept once
        return {
            "dataset_state": None if itself else state_of(self.own),
            "fetcher_state": {
                "dataset_iter_state": state_of(self._iterator),
                "fetcher_ended": self.ended,
            },
            "at": self.samples,
        }

    def snapshot(self) -> bytes:
        return pickled(self.state)


class _Tracked:
    """Counts samples in a worker, and marks their end: torch sends nothing beside that."""

    def __init__(self, stream: Stream, source: Iterator[Any]) -> None:
        self._stream = stream
        self._source = source

    def __iter__(self) -> _Tracked:
        return self

    def __next__(self) -> Any:
        stream = self._stream
        if stream.ended:
            raise StopIteration
        sample = next(self._source, _END)
        if sample is _END:
            stream.ended = True
        else:
            stream.samples += 1
        return sample


class StreamCollate(AroundCollate):
    """A worker's collate function for a Stream.

    Args:
        collate: the loader's.
        stream: the same object as the worker's data set.
        every: a state is due with each so many-th minibatch of this worker; 0: never.
        size: samples of a full minibatch; None: samples are not collated.
        drop_last: whether smaller ones are left out. (torch's own fetcher, who does so in the
            worker, does not know it: our mark of the end would make them full.)
    """

    def __init__(
        self, collate: Any, stream: Stream, every: int, size: int | None, drop_last: bool
    ) -> None:
        self.collate = collate
        self.stream = stream
        self.every = every
        self.size = size
        self.drop_last = drop_last

    def __call__(self, samples: Any) -> Any:
        stream = self.stream
        ended = samples is _END
        if self.size is None:
            data = NOTHING if ended else self.collate(samples)
        else:
            if samples[-1] is _END:
                ended = True
                samples = samples[:-1]
            left_out = not samples or (self.drop_last and len(samples) < self.size)
            data = NOTHING if left_out else self.collate(samples)
        if not stream.tracked:
            return Carried(NOTHING) if data is NOTHING else data
        stream.minibatches += data is not NOTHING
        due = self.every and stream.minibatches % self.every == 0
        after = stream.snapshot() if due or ended else None
        before, stream.before = stream.before, None
        return Carried(
            data, None, before, after, samples=stream.samples, minibatches=stream.minibatches
        )


def _loaded(worker: int, state: bytes) -> dict[str, Any]:
    found = pickle.loads(state)
    if isinstance(found, NoState):
        raise StateError(
            f"the data set's own state could not be taken in worker {worker}: {found.why}"
        )
    return found  # type: ignore[no-any-return]


@dataclass
class _Told:
    """What a worker said last: its pickled state, and what it gave."""

    state: bytes | None = None
    given: int = 0
    given_minibatches: int = 0


class Tally:
    """States of the workers of one pass, as of what was yielded.

    Args:
        workers: how many.
        saved: by worker, where the pass goes on.
        last: the worker whose minibatch was yielded last.
        together: the states that count are those of one place in the order, see keep(); else what
            each worker said last.
    """

    def __init__(
        self, workers: int, saved: dict[int, dict[str, Any]], last: int, together: bool
    ) -> None:
        self.last = last
        self.ended = [False] * workers  # of workers that say nothing of themselves
        self._told = [_Told() for _ in range(workers)]
        for worker, state in saved.items():
            kept = {name: state[name] for name in ("dataset_state", "fetcher_state", "at")}
            iterator = (kept["fetcher_state"] or {}).get("dataset_iter_state")
            unknown = kept["dataset_state"] is None and iterator is None
            told = None if unknown else pickle.dumps(kept)
            self._told[worker] = _Told(told, state["given"], state["given_minibatches"])
        self._kept = [told.state for told in self._told] if together else None

    def heard_first(self, worker: int, carried: Carried) -> None:
        """What a worker says before its first minibatch of the pass."""
        told = self._told[worker]
        if told.state is None:
            told.state = carried.before
            if self._kept is not None:
                self._kept[worker] = carried.before

    def yielded(self, worker: int, carried: Carried | None, samples: int) -> None:
        """Books a minibatch of `samples` samples as far as this process knows."""
        told = self._told[worker]
        if carried is None or carried.data is not NOTHING:
            self.last = worker
        if carried is None:
            told.given, told.given_minibatches = told.given + samples, told.given_minibatches + 1
            return
        self.heard_first(worker, carried)
        told.given, told.given_minibatches = carried.samples, carried.minibatches
        if carried.after is not None:
            told.state = carried.after

    def is_silent(self) -> bool:
        return all(told.state is None and not told.given for told in self._told)

    def keep(self) -> None:
        """Keeps the states as they are now."""
        self._kept = [told.state for told in self._told]

    def as_dict(self) -> dict[str, Any]:
        """By worker, in torchdata's words. Raises StateError where one could not be taken."""
        states = self._kept or [told.state for told in self._told]
        return {
            f"worker_{worker}": {
                "worker_id": worker,
                **(self._unknown(worker) if state is None else _loaded(worker, state)),
                "given": told.given,
                "given_minibatches": told.given_minibatches,
            }
            for worker, (told, state) in enumerate(zip(self._told, states, strict=True))
        }

    def _unknown(self, worker: int) -> dict[str, Any]:
        fetcher = {"dataset_iter_state": None, "fetcher_ended": self.ended[worker]}
        return {"dataset_state": None, "fetcher_state": fetcher, "at": 0}
