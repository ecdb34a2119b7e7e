"""Where a pass over a loader is: what state_dict() says of it, and how one goes on from that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils.data
from torch.utils.data import IterDataPipe

from coordl.delivery import generators
from coordl.delivery.content import Content
from coordl.delivery.history import EpochRecord, History
from coordl.delivery.order import Begin, Mark, Order
from coordl.delivery.ranks import is_elastic
from coordl.delivery.stateful import Tally, is_stateful
from coordl.delivery.tended import Asked, steps_between_states
from coordl.errors import StateError

VERSION = 1


@dataclass(frozen=True)
class Saved:
    """A state to go on from, as one loader sees it.

    Attributes:
        state: what state_dict() gave.
        workers: states of stateful data sets, by worker; what new workers begin with.
        again: it is that of a pass's end: the next one begins.
    """

    state: dict[str, Any] = field(default_factory=dict)
    workers: dict[int, dict[str, Any]] = field(default_factory=dict)
    again: bool = False

    @classmethod
    def of(cls, state: dict[str, Any], loader: Any) -> Saved:
        """Checks that this loader can go on from it.

        Raises:
            StateError: it cannot.
        """
        again = bool(state["finished"])
        _check(state, loader, again)
        workers: dict[int, dict[str, Any]] = {}
        if "_snapshot" in state:
            told = state["_snapshot"]["_worker_snapshots"]
            workers = {one["worker_id"]: one for one in told.values()}
        elif "dataset_state" in state:
            workers = {0: state}
        if again and loader.num_workers > 0 and not loader.persistent_workers:
            workers = {}  # torch starts new ones for each pass
        return cls(copy.deepcopy(state), copy.deepcopy(workers), again)


def _check(state: dict[str, Any], loader: Any, again: bool) -> None:
    dataset, count = loader.dataset, loader.num_workers
    if state["seed"] != loader.seed:
        raise StateError(
            f"the state was taken with seed={state['seed']} and this loader has seed={loader.seed}"
            ": its samples would be drawn otherwise in mid-epoch. Give it that seed."
        )
    if state["length"] != length_of(dataset):
        raise StateError(
            f"the state was taken with a data set of {state['length']} samples, and this one has "
            f"{length_of(dataset)}: the order would be another. Go on with that data set, or begin "
            "a new epoch."
        )
    by_worker = is_stateful(dataset) or isinstance(dataset, torch.utils.data.IterableDataset)
    if by_worker and state["num_workers"] != count:
        raise StateError(
            f"the state was taken with num_workers={state['num_workers']} and this loader has "
            f"{count}: each worker of an iterable or stateful data set has a part of the state. "
            "Give it as many."
        )
    if again:
        return
    if isinstance(dataset, IterDataPipe) and state["minibatches"]:
        raise StateError("a pass over an IterDataPipe cannot be gone on with in its middle")
    where, number = sampler_epoch(loader)
    if where is not None and number != state["epoch"]:
        raise StateError(
            f"the state was taken in epoch {state['epoch']} and the sampler is set to {number}. "
            f"Call set_epoch({state['epoch']}) before the epoch that goes on, or load no state."
        )
    same_size = state["batch_size"] == loader.batch_size
    if not same_size and (state["ahead"] or state.get("_steps_since_snapshot")):
        raise StateError(
            f"the state was taken with batch_size={state['batch_size']} and this loader has "
            f"{loader.batch_size}: minibatches out of order, or ones to be made again for the data "
            "set's state, can be found with that one only."
        )
    ranks, now = state["ranks"] or {"replicas": 1}, ranks_of(loader) or {"replicas": 1}
    if ranks["replicas"] != now["replicas"] and not is_elastic(sampler_of(loader)):
        raise StateError(
            f"the state was taken with {ranks['replicas']} ranks and the sampler has "
            f"{now['replicas']}: only the rest of an epoch of torch's own DistributedSampler can "
            "be shared by others"
        )


def length_of(dataset: Any) -> int | None:
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return None  # a guess at best
    try:
        return len(dataset)
    except Exception:  # torch does not ask where a sampler is given
        return None


def sampler_of(loader: Any) -> Any:
    """The sampler of single samples, where there is one of torch's kind."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    return loader.sampler if inner is None else inner


def ranks_of(loader: Any) -> dict[str, int] | None:
    """How many ranks share the sampler's order, and which this is; None where it is not shared."""
    sampler = sampler_of(loader)
    replicas, rank = getattr(sampler, "num_replicas", None), getattr(sampler, "rank", None)
    if not isinstance(replicas, int) or not isinstance(rank, int):
        return None
    return {"replicas": replicas, "rank": rank}


def sampler_epoch(loader: Any) -> tuple[Any, int]:
    """The sampler that has set_epoch, and its epoch; (None, 0) where there is none."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    for sampler in (loader.batch_sampler, loader.sampler, inner):
        if hasattr(sampler, "set_epoch") and isinstance(getattr(sampler, "epoch", None), int):
            return sampler, int(sampler.epoch)  # type: ignore[union-attr]
    return None, 0


class Position:
    """One pass: its epoch, its order, what its workers said last.

    Args:
        loader: the user's.
        saved: where to go on; None: a pass begins as torch begins one.
        native: native threads make its samples.
        turn: passes of the same iterator before it.

    Attributes:
        begun_from: the state it goes on from; empty where it goes on from none.
        order: of its minibatches.
        record, history: its figures, and the loader's.
        tally: what workers say of themselves; None where they have nothing to say.
        first_worker: who gets the first minibatch.
        live: gives the state of a stateful data set of this process.
        content: digest of what native threads made and was yielded; None where nobody asked for it.
        settle: has the iterator draw its first minibatch and hear each worker once.
    """

    def __init__(self, loader: Any, saved: Saved | None, native: bool, turn: int) -> None:
        self.begun_from = state = {} if saved is None else saved.state
        middle = saved is not None and not saved.again
        self.native, self.workers = native, loader.num_workers
        self.live: Callable[[], dict[str, Any]] | None = None
        self.settle: Callable[[], Any] = lambda: None
        self.finished = False
        self.content: Any = Content() if native and loader.verify else None
        self._facts = {
            "seed": loader.seed,
            "length": length_of(loader.dataset),
            "num_workers": loader.num_workers,
            "batch_size": loader.batch_size,
        }
        self.history: History = loader._local.history
        if state:
            self.history.yielded = state["passes"]
        joined = loader._local.joined
        self._group = joined.group
        turned = 0
        if middle:
            self.epoch: int = state["epoch"]
        else:
            own = loader._epoch_number()
            new = not (state or self.history.records)
            self.epoch, turned = joined.enter(loader, own, new)
            if self.epoch != own:
                self.history.yielded = self.epoch
        begun = middle and state["begun"]
        self.record: EpochRecord = self.history.begin(self.epoch, native, begun)
        goes_on = middle or (saved is not None and loader.persistent_workers)
        self.turn = state["turn"] + (0 if middle else 1) if goes_on else turn
        self.seed: int | None = state["base_seed"] if goes_on else None
        self.iterable = isinstance(loader.dataset, torch.utils.data.IterableDataset)
        self.by_state = (
            self.workers > 0 and not native and not self.iterable and is_stateful(loader.dataset)
        )
        self.every = steps_between_states(loader)
        self._ranks = ranks_of(loader)
        begin = _begin_of(state, self._ranks, self.by_state) if middle else Begin(turned=turned)
        if saved is not None and saved.again:
            begin.sampler = state["sampler"]
            _put_back(loader, state["generators"])
        if joined.group is not None:  # whatever the pass before left the generator at
            joined.order.key(loader, joined.group.seed, self.epoch)
        if self._ranks is not None:
            self._ranks["before"] = begin.rank_base or 0
        self.record.began_at = begin.turned
        self.order = Order(loader, begin, self.every)
        # Of the generator the base seed comes from: where the state has a seed, none is drawn.
        source = loader.generator
        self._source: torch.Generator = torch.default_generator if source is None else source
        self._undrawn = self._source.get_state() if self.seed is not None else None
        self.tally: Tally | None = None
        self.first_worker = 0
        if self.iterable or self.by_state:
            last = state["_snapshot"]["_last_yielded_worker_id"] if "_snapshot" in state else -1
            last = last if middle else -1
            told = saved.workers if middle and saved is not None else {}
            self.tally = Tally(max(1, self.workers), told, last, together=self.by_state)
            first = last + 1 if self.iterable else self.order.drawn
            self.first_worker = first % max(1, self.workers)

    def base_seed(self, drawn: int) -> int:
        """The base seed of the pass, of torch's draw: that of the state goes on without a draw."""
        if self.seed is None:
            self.seed = drawn
        elif self._undrawn is not None:
            self._source.set_state(self._undrawn)
            self._undrawn = None
        return self.seed

    # -- drawing and yielding ----------------------------------------------------------------

    def asked(self, indices: Any, number: int, replay: bool) -> Asked:
        """What a worker with a stateful data set is asked for."""
        asked = Asked(indices)
        asked.turn = self.turn
        # Of the minibatches up to the next place whose states are kept, each worker's last.
        asked.due = not asked or (self.every > 0 and -(number + 1) % self.every < self.workers)
        asked.replay = replay
        return asked

    def took(self, number: int | None = None) -> None:
        """Books a minibatch as yielded; None: the next in order."""
        self.order.took(number)
        if self.by_state and self.tally is not None and self.order.mark == self.order.kept:
            self.tally.keep()

    def finish(self) -> None:
        """Books the end of the pass."""
        self.finished = True
        if self._group is not None:
            self._group.at(self.epoch + 1)
        if self.by_state and self.tally is not None:
            self.tally.keep()

    # -- the state ---------------------------------------------------------------------------

    def is_void(self) -> bool:
        """Whether its iterator ended before it drew or heard anything: it can say nothing."""
        if self.finished:
            return False
        self.settle()
        silent = self.workers > 0 and self.tally is not None and self.tally.is_silent()
        return silent or not (self.order.started or self.order.endless)

    def state(self) -> dict[str, Any]:
        """What state_dict() gives: of constant size but for what data set and sampler say."""
        if not self.finished:
            self.settle()
        order = self.order
        drew = generators.TORCHS in order.starts
        now = generators.read(torch.default_generator) if drew else None
        states, sampler = dict(order.starts), order.kept_sampler
        if self.finished:
            states = {role: generators.read(own) for role, own in order.own_generators.items()}
            states.update({} if now is None else {generators.TORCHS: now})
            sampler = order.sampler_states()
        state = {
            "coordl": VERSION,
            "epoch": self.epoch,
            **self._facts,
            **order.mark._asdict(),
            "ahead": order.ahead(),
            "turned": order.begin.turned,
            "finished": self.finished,
            "begun": self.record.begun,
            "passes": self.history.yielded,
            "turn": self.turn,
            "base_seed": self.seed,
            "generators": states,
            "torch_now": now,
            "ranks": self._ranks,
            "sampler": sampler,
            "kept": order.kept._asdict(),
        }
        if self.tally is not None and self.workers > 0:
            since = order.mark.minibatches - order.kept.minibatches if self.by_state else 0
            state["_snapshot"] = {
                "_last_yielded_worker_id": self.tally.last,
                "_worker_snapshots": self.tally.as_dict(),
            }
            state["_steps_since_snapshot"] = since
        elif self.live is not None:
            state.update(self.live(), given=0, given_minibatches=0)
        elif self.tally is not None:
            state.update(self.tally.as_dict()["worker_0"])
        return state


def _put_back(loader: Any, states: dict[str, str]) -> None:
    generators.write_all(generators.own_generators(loader), states)
    if generators.TORCHS in states:
        generators.write(torch.default_generator, states[generators.TORCHS])


def _begin_of(state: dict[str, Any], ranks: dict[str, int] | None, replay: bool) -> Begin:
    begin = Begin(
        mark=Mark(state["minibatches"], state["samples"], state["digest"]),
        kept=Mark(**state["kept"]),
        sampler=state["sampler"],
        replay=replay,
        ahead=state["ahead"],
        starts=state["generators"],
        now=state["torch_now"],
        turned=state.get("turned", 0),  # states of 0.1 had none
    )
    was = state["ranks"]
    if was is None or ranks is None:
        return begin
    begin.rank_base = was["before"] or None
    begin.checked = was["rank"] == ranks["rank"]
    if was["replicas"] != ranks["replicas"]:
        # From here on other ranks take turns: of what they share, they have consumed nothing yet.
        begin.rank_base = was["before"] + state["samples"] * was["replicas"]
        begin.mark = begin.kept = Mark()
        begin.ahead = []
    return begin
