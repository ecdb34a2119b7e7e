"""Data sets as torch's iterators read them for us: the user's own, with errors named or passed
over, and with the states that make a pass resumable.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.utils.data
from torch.utils.data import IterDataPipe, MapDataPipe

from coordl.delivery.carried import NOTHING, CarryingCollate, Made
from coordl.delivery.on_error import BadSamples, has_batches, is_beyond, sample_path
from coordl.delivery.stateful import Stream, StreamCollate, is_stateful, state_of
from coordl.errors import SKIP
from coordl.fetch.source import CachedFolder
from coordl.prep.keyed import KeyedDataset, keyed_draws


class Asked(list):
    """Indices of a minibatch for a worker whose data set has a state.

    Without any it asks for the worker's state alone.

    Attributes:
        turn: number of the pass; a worker says its state at the begin of each.
        due: its state after this minibatch is wanted.
        replay: made for the sake of that state alone.
    """

    turn = 0
    due = False
    replay = False


class Tended(torch.utils.data.Dataset):
    """A data set with an index, its errors handled, its state kept.

    Args:
        dataset: what to read: the user's, or it with its reads cached or its draws keyed.
        own: the user's data set.
        on_error: the loader's.
        saved: by worker, states to go on from; of stateful data sets.
    """

    def __init__(
        self, dataset: Any, own: Any, on_error: Any, saved: dict[int, dict[str, Any]]
    ) -> None:
        self.dataset = dataset
        self.own = own
        self.on_error = on_error
        self.saved = saved
        self.in_batches = has_batches(dataset)
        self._turn = -1

    @property
    def tended(self) -> Any:
        """What is read."""
        return self.dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, asked: Any) -> Any:
        """One sample, or it on its way to CarryingCollate."""
        if type(asked) is Asked:
            return self._with_state(asked, lambda: self._one(asked[0]))
        return self._one(asked)

    def __getitems__(self, asked: Any) -> Any:
        """Samples of a minibatch, or them on their way to CarryingCollate."""
        if type(asked) is Asked:
            return self._with_state(asked, lambda: self._many(asked))
        return self._many(asked)

    def _one(self, asked: Any) -> Any:
        try:
            return self.dataset[asked]
        except Exception as error:
            bad = BadSamples()
            sample = self._instead(error, asked, bad)
            return Made(NOTHING if sample is SKIP else sample, bad)

    def _many(self, asked: Any) -> Any:
        if self.in_batches:
            try:
                return self.dataset.__getitems__(asked)
            except Exception as error:
                if self.on_error == "raise":
                    error.add_note(f"in the minibatch of samples {', '.join(map(str, asked))}")
                    raise
                # Which of them failed, its own error says: they are asked for one by one.
        bad, samples = BadSamples(), []
        with self._reading_ahead(asked):
            for one in asked:
                try:
                    sample = (
                        self.dataset.__getitems__([one])[0]
                        if self.in_batches
                        else self.dataset[one]
                    )
                except Exception as error:
                    sample = self._instead(error, one, bad)
                    if sample is SKIP:
                        continue
                samples.append(sample)
        return Made(samples or NOTHING, bad) if bad else samples

    def _reading_ahead(self, asked: Any) -> AbstractContextManager[None]:
        dataset = self.dataset
        if type(dataset) is KeyedDataset:
            dataset, asked = dataset.dataset, [index for _, index in asked]
        known = isinstance(dataset, CachedFolder)
        return dataset.reading_ahead(list(asked)) if known else nullcontext()

    def _instead(self, error: Exception, asked: Any, bad: BadSamples) -> Any:
        """What takes the place of a sample that failed; raises where that is on_error's wish."""
        keyed = type(self.dataset) is KeyedDataset
        index = asked[1] if keyed else asked
        if is_beyond(self.own, index, error):
            raise error
        path = sample_path(self.own, index, error)
        with keyed_draws(self.dataset.seed, *asked) if keyed else nullcontext():
            return bad.meet(self.on_error, error, index, path)

    # -- state, in a worker ------------------------------------------------------------------

    def _with_state(self, asked: Asked, make: Callable[[], Any]) -> Made:
        before = None
        if asked.turn != self._turn:
            self._turn = asked.turn
            self.restore()
            before = self.snapshot()
        samples = make() if asked else NOTHING
        made = samples if type(samples) is Made else Made(samples)
        made.before = before
        if asked.replay:
            made.samples = NOTHING
        made.snapshot = self.snapshot if asked.due else None
        return made

    def restore(self) -> None:
        """Has the user's data set go on where its state says, once."""
        info = torch.utils.data.get_worker_info()
        state, self.saved = self.saved.get(0 if info is None else info.id), {}
        if state is not None and state["dataset_state"] is not None and is_stateful(self.own):
            self.own.load_state_dict(state["dataset_state"])

    def state(self) -> dict[str, Any]:
        """Of the user's data set, in torchdata's words."""
        return {"dataset_state": state_of(self.own), "fetcher_state": None, "at": 0}

    def snapshot(self) -> bytes:
        return pickle.dumps(self.state())


class OwnDataset:
    """A worker_init_fn that has get_worker_info() show the user's own data set.

    Args:
        init: the user's worker_init_fn, or None.
        own: the user's data set.
    """

    def __init__(self, init: Callable[[int], None] | None, own: Any) -> None:
        self.init, self.own = init, own

    def __call__(self, worker: int) -> None:
        info = torch.utils.data.get_worker_info()
        object.__setattr__(info, "dataset", self.own)  # torch forbids to set it
        if self.init is None:
            return
        try:
            self.init(worker)
        except Exception as error:
            error.add_note(FROM_INIT)
            raise


FROM_INIT = "raised by worker_init_fn"


def tended_view(
    loader: Any, view: Any, own: Any, saved: dict[int, dict[str, Any]], again: bool
) -> Any:
    """A view of the loader over its data set as this module describes it.

    Args:
        loader: the user's.
        view: it, over the data set to read.
        own: the user's data set, as workers hold it.
        saved: by worker, states to go on from.
        again: they are those of a pass's end, and the next pass begins.
    """
    dataset, workers = view.dataset, view.num_workers
    if isinstance(dataset, IterDataPipe | MapDataPipe):
        return view  # torch shards and seeds them by their type
    every = steps_between_states(loader)
    view = copy.copy(view)
    tended: Any
    if isinstance(dataset, torch.utils.data.IterableDataset):
        tended = Stream(dataset, own, saved, again, workers > 0)
        if workers > 0:
            view.collate_fn = StreamCollate(
                view.collate_fn, tended, every, view.batch_size, view.drop_last
            )
            view.__dict__["drop_last"] = False
    else:
        tended = Tended(dataset, own, loader.on_error, saved)
        if loader.on_error != "raise" or (is_stateful(own) and workers > 0):
            view.collate_fn = CarryingCollate(view.collate_fn)
        if workers == 0:
            tended.restore()
    view.__dict__["dataset"] = tended  # torch forbids to set it; the view was never anyone's
    if workers > 0:
        view.worker_init_fn = OwnDataset(view.worker_init_fn, own)
    return view


def steps_between_states(loader: Any) -> int:
    """Of snapshot_every_n_steps, what can be: minibatches that come out of order cannot be made
    again in the same worker, so that its states have to come with each of them."""
    every = int(loader.snapshot_every_n_steps or 0)
    return every if loader.in_order or loader.num_workers == 0 else 1
