"""The order of one pass: which minibatches were drawn from the samplers, which were yielded, and
how to draw the rest of it again.

Nothing is fetched to go on in the middle: samplers are asked for indices, and those of what was
consumed are dropped. A sampler of the user's that keeps its own state is asked to go on instead.
"""

from __future__ import annotations

import copy
import itertools
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils.data import BatchSampler
from torch.utils.data.dataloader import _InfiniteConstantSampler

from coordl.delivery import generators
from coordl.delivery.ranks import rest_of_epoch
from coordl.delivery.stateful import is_stateful
from coordl.errors import StateError

_SKIPPED_AT_ONCE = 4096


class Mark(NamedTuple):
    """A place in a pass: what was yielded before it, and a checksum (CRC-32) of its indices."""

    minibatches: int = 0
    samples: int = 0
    digest: int = 0

    def after(self, indices: list[Any]) -> Mark:
        digest = zlib.crc32(_bytes(indices), self.digest)
        samples = len(indices) if isinstance(indices, Sized) else 1
        return Mark(self.minibatches + 1, self.samples + samples, digest)


_START = Mark()


def _bytes(indices: list[Any]) -> bytes:
    try:
        return array("q", indices).tobytes()
    except (TypeError, OverflowError):  # data sets may be indexed by anything: names, tuples
        return repr(indices).encode()


@dataclass
class Begin:
    """Where a pass goes on.

    Attributes:
        mark: what was yielded.
        kept: place of the states kept: sampler's, and workers' of a stateful data set.
        sampler: states of sampler and its iterator at `kept`, where they keep any.
        replay: minibatches from `kept` to `mark` are made again and dropped, for the sake of the
            data set's own state.
        ahead: minibatches yielded after `mark` with in_order=False, counted from it.
        starts: states of generators before the sampler's first draw of the pass, by role.
        now: that of torch's global generator when the state was taken.
        rank_base: samples all ranks had consumed when the present number of ranks began; None:
            the sampler's ranks are those of the whole epoch.
        checked: the mark's digest is that of this rank's indices.
        turned: the pass begins with this sample of the order; those before it come last.
    """

    mark: Mark = _START
    kept: Mark = _START
    sampler: dict[str, Any] | None = None
    replay: bool = False
    ahead: list[int] = field(default_factory=list)
    starts: dict[str, str] = field(default_factory=dict)
    now: str | None = None
    rank_base: int | None = None
    checked: bool = True
    turned: int = 0


class Order:
    """Draws minibatches' indices for one pass and books what was yielded.

    Args:
        loader: its samplers and generators.
        begin: where to go on.
        every: the sampler's state is kept at each so many-th minibatch; 0: at the begin only.
    """

    def __init__(self, loader: Any, begin: Begin, every: int) -> None:
        self.sampler = loader._index_sampler
        self.many = loader._auto_collation
        self.begin = begin
        self.every = every
        self.mark = begin.mark
        self.kept = begin.kept
        self.kept_sampler = begin.sampler
        self.starts = dict(begin.starts)
        self.drawn = begin.kept.minibatches if begin.replay else begin.mark.minibatches
        self.first = 0  # position in the epoch of the first sample of what was drawn last
        self._next_first = begin.kept.samples if begin.replay else begin.mark.samples
        self.own_generators = generators.own_generators(loader)
        self._ahead = {begin.mark.minibatches + number for number in begin.ahead}
        self._out: dict[int, tuple[Any, Any]] = {}
        self._given: set[int] = set()
        self._next: list[Any] = []  # drawn already: [indices] or nothing
        self._stream: Iterator[list[Any]] | None = None
        self._inner: tuple[Any, Any] = (None, None)  # sampler and its iterator
        self.endless = isinstance(_innermost(self.sampler), _InfiniteConstantSampler)

    def draw(self, torchs: Iterator[Any]) -> tuple[int, Any, bool]:
        """(number, index or list of indices, whether only to be replayed) of the next minibatch.

        Args:
            torchs: torch's own iterator over the index sampler, not begun.

        Raises:
            StopIteration: there is none.
            StateError: the sampler did not repeat the order it gave before.
        """
        self.start(torchs)
        assert self._stream is not None
        while True:
            indices: Any = self._next.pop() if self._next else next(self._stream)
            if not isinstance(indices, Sized) and isinstance(indices, Iterable):
                indices = list(indices)  # a batch sampler may yield an iterator: to be read once
            number, self.drawn = self.drawn, self.drawn + 1
            self.first = self._next_first
            self._next_first += len(indices) if isinstance(indices, Sized) else 1
            replay = number < self.begin.mark.minibatches
            if not replay and not self.endless:
                self._out[number] = (indices, self._sampler_state(number))
            if number in self._ahead:
                self._ahead.discard(number)
                self.took(number)
                continue
            return number, indices if self.many else indices[0], replay

    def took(self, number: int | None = None) -> None:
        """Books minibatch `number` as yielded; None: the next in order."""
        if self.endless:
            self.mark = Mark(self.mark.minibatches + 1)
            return
        number = self.mark.minibatches if number is None else number
        if number not in self._out:
            return
        self._given.add(number)
        while (first := self.mark.minibatches) in self._given:
            self._given.remove(first)
            indices, states = self._out.pop(first)
            self.mark = self.mark.after(indices)
            if self.every and self.mark.minibatches % self.every == 0:
                self.kept, self.kept_sampler = self.mark, states

    @property
    def started(self) -> bool:
        return self._stream is not None

    def consumed(self) -> int:
        """Minibatches of the sampler's that what was yielded amounts to, of their present size."""
        size = getattr(self.sampler, "batch_size", None)
        samples = self.mark.samples
        return -(-samples // size) if isinstance(size, int) and size else self.mark.minibatches

    def ahead(self) -> list[int]:
        """Minibatches yielded out of order, counted from the mark."""
        return sorted(number - self.mark.minibatches for number in self._given)

    # -- the begin of a pass -----------------------------------------------------------------

    def start(self, torchs: Iterator[Any]) -> None:
        """Draws the first minibatch, or those consumed and the next, unless that was done.

        What the sampler is drawn with is on record afterwards, and torch's global generator is
        where it would have been.
        """
        if self._stream is not None:
            return
        if self.endless:
            self._stream = iter(torchs) if self.many else ([one] for one in torchs)
            return
        begin, torchs_own = self.begin, torch.default_generator
        before = torch.get_rng_state()
        generators.write_all(self.own_generators, begin.starts)
        was_torchs = generators.TORCHS in begin.starts
        if was_torchs:
            generators.write(torchs_own, begin.starts[generators.TORCHS])
        self.starts = {role: generators.read(own) for role, own in self.own_generators.items()}
        at_start = torch.get_rng_state()
        # A chain outlives what its parts raise: who goes on after a sampler's error gets what comes
        # next, as with torch, where a generator over them would have ended.
        self._stream = itertools.chain.from_iterable(self._parts(torchs))
        self._next = list(itertools.islice(self._stream, 1))
        if not torch.equal(torch.get_rng_state(), at_start):
            self.starts[generators.TORCHS] = generators.text_of(at_start)
        if was_torchs:
            generators.write(torchs_own, begin.now or generators.text_of(before))

    def first_minibatch(self, torchs: Iterator[Any]) -> Any:
        """The indices draw() will give first; None where there are none or that is not known."""
        self.start(torchs)
        return self._next[0] if self._next else None

    def _parts(self, torchs: Iterator[Any]) -> Iterator[Iterable[list[Any]]]:
        """Minibatches, in parts."""
        sampler = self.sampler
        # Minibatches of torch's can be cut anew from the samples.
        plain = self.many and type(sampler) is BatchSampler
        inner = sampler.sampler if plain else sampler
        source = self._restored(inner, None if plain else torchs)
        if self.begin.turned:
            source = _turned(source, self.begin.turned)
        goal = self.begin.kept if self.begin.replay else self.begin.mark
        mark = Mark() if self.begin.sampler is None else self.begin.kept
        samples = goal.samples - mark.samples
        if plain or not self.many:
            self._check(_skip(source, samples, mark), goal, inner)
            if not self.many:
                yield map(_alone, source)
            else:
                yield _cut(source, sampler.batch_size, sampler.drop_last)
            return
        rest = []
        while samples > 0:
            try:
                indices = list(next(source))
            except StopIteration:
                break
            mark = mark.after(indices[:samples])
            if len(indices) > samples:  # another size than before: the rest of one in its middle
                rest = [indices[samples:]]
            samples -= len(indices)
        self._check(mark, goal, inner)
        yield rest
        yield source

    def _check(self, found: Mark, goal: Mark, sampler: Any) -> None:
        same = found.digest == goal.digest or not self.begin.checked
        if found.samples != goal.samples or not same:
            raise StateError(
                f"{type(sampler).__qualname__} does not repeat the order the state is of: its "
                f"first {goal.samples:,} indices are others. Give the loader the data set and the "
                "sampler (shuffle=) it had then; a sampler that draws wants a generator= of "
                "torch's, or a state_dict() and load_state_dict() of its own."
            )

    def _restored(self, sampler: Any, torchs: Iterator[Any] | None) -> Iterator[Any]:
        """An iterator over the sampler, where its states say."""
        begin = self.begin
        if begin.rank_base is not None:
            return rest_of_epoch(sampler, begin.rank_base)
        states = begin.sampler
        if states is None:
            source = iter(sampler) if torchs is None else torchs
        else:
            if states["sampler"] is not None and is_stateful(sampler):
                sampler.load_state_dict(states["sampler"])
            source = iter(sampler)
            if states["iterator"] is not None and is_stateful(source):
                source.load_state_dict(states["iterator"])  # type: ignore[attr-defined]
        self._inner = (sampler, source)
        if states is not None and begin.kept.samples == 0:
            # Some samplers say at the begin of a pass where the one before ended.
            first = next(source, None)
            if first is not None:
                return itertools.chain([first], source)
            source = iter(sampler)
            self._inner = (sampler, source)
        if states is None and begin.mark == Mark():
            self.kept_sampler = self.sampler_states()
        return source

    # -- samplers with states of their own ---------------------------------------------------

    def sampler_states(self) -> dict[str, Any] | None:
        """What sampler and iterator say of themselves now; None where neither keeps a state."""
        states = [
            copy.deepcopy(part.state_dict()) if is_stateful(part) else None for part in self._inner
        ]
        if states == [None, None]:
            return None
        return {"sampler": states[0], "iterator": states[1]}

    def _sampler_state(self, number: int) -> Any:
        if not self.every or (number + 1) % self.every:
            return None
        return self.sampler_states()


def _alone(index: Any) -> list[Any]:
    return [index]


def _cut(source: Iterator[Any], size: int, drop_last: bool) -> Iterator[list[Any]]:
    while indices := [*itertools.islice(source, size)]:
        if len(indices) < size and drop_last:
            return
        yield indices


def _turned(source: Iterator[Any], first: int) -> Iterator[Any]:
    before = array("q", itertools.islice(source, first))
    return itertools.chain(source, before)


def _innermost(sampler: Any) -> Any:
    # (Accelerate's SkipBatchSampler is a BatchSampler that has none.)
    return getattr(sampler, "sampler", sampler) if isinstance(sampler, BatchSampler) else sampler


def _skip(source: Iterator[Any], samples: int, mark: Mark) -> Mark:
    while samples > 0:
        indices = [*itertools.islice(source, min(samples, _SKIPPED_AT_ONCE))]
        if not indices:
            break
        mark, samples = mark.after(indices), samples - len(indices)
    return mark
