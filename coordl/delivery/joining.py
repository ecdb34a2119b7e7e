"""Which group a loader joins, if any, and what it tells the others of itself."""

from __future__ import annotations

import os
from typing import Any

from torch.utils.data import IterableDataset, MapDataPipe

from coordl.delivery.order import Order
from coordl.delivery.route import Route
from coordl.delivery.shared_order import (
    KeyedOrder,
    describe_order,
    rank_of,
    whole_order,
    why_not_shared,
)
from coordl.delivery.stateful import is_stateful
from coordl.fetch.tally import Tally
from coordl.staging.group import DataDigest, Facts, Group, folder_name, seed_in, seed_of
from coordl.staging.job_group import VARIABLE
from coordl.staging.probe import Probe
from coordl.staging.shared_samples import COUNTED, SharedDataset


def why_alone(loader: Any, route: Route) -> str:
    """Why no group can share this loader's samples; empty where one can."""
    dataset = loader.dataset
    if not route.native and isinstance(dataset, IterableDataset | MapDataPipe):
        return "its data set has no index by which another job could make the same sample"
    if not route.native and is_stateful(dataset):
        return "its data set keeps a state of its own"
    if loader.peers is not None:
        return "peers= asks other servers for items, which members of a group do not"
    return why_not_shared(loader)


class Joined:
    """A loader's place in its group, kept over its passes.

    Attributes:
        group: None outside one.
        order: draws the order that all members have.
    """

    def __init__(self) -> None:
        self.group: Group | None = None
        self.order = KeyedOrder()
        self._digest = DataDigest()
        self._tally: Tally | None = None
        self._cannot = False  # its samples were looked at, and cannot be shared

    def native(self, loader: Any, route: Route) -> bool:
        """Joins a group that shares what native threads make; whether the loader is in one.

        Raises:
            ValueError, GroupError: it cannot be in the one it names; says why.
        """
        named = _name_for(loader, route)
        if named is None:
            return False
        assert route.folder is not None and route.plan is not None
        digest, order = self._digest(route.folder), describe_order(loader)
        facts = Facts.of(route.folder, digest, route.plan, order, _count(loader), loader.seed)
        if self.group is not None:
            self.group.check(facts)
            return True
        self._join(loader, named, facts, route.plan.native_pass().sample_bytes)
        return True

    def python(self, loader: Any, dataset: Any, route: Route) -> SharedDataset | None:
        """The data set, its samples made together with a group; None outside one.

        Raises:
            ValueError, GroupError: as native().
        """
        named = _name_for(loader, route)
        unasked = loader.group is None and (loader.num_workers == 0 or self._cannot)
        if named is None or unasked:
            return None
        if self.group is None:
            seed = loader.seed
            if seed is None:
                seed = seed_in(named + rank_of(loader)) if loader.group else seed_of(named)
            try:
                probe = Probe.of(dataset, seed)
            except Exception:
                if loader.group is not None:
                    raise
                self._cannot = True
                return None  # the environment groups what can share
            kind = f"{type(loader.dataset).__qualname__}, {len(dataset):,} samples"
            if route.folder is not None:
                kind = folder_name(route.folder, self._digest(route.folder))
            made = f"made in Python, the first sample is {probe.digest}"
            facts = Facts(kind, made, describe_order(loader), _count(loader), seed)
            self._join(loader, named, facts, probe.record_bytes, run=1)
        assert self.group is not None
        self._tally = Tally(COUNTED, loader.num_workers)
        workers = loader.num_workers
        return SharedDataset(dataset, self.group.seed, self.group, self._tally, workers)

    def enter(self, loader: Any, epoch: int, new: bool) -> tuple[int, int]:
        """(epoch, sample of its order) with which a pass begins: where the others are.

        Args:
            epoch: the loader's own.
            new: its first; then it takes the epoch of the member that is furthest, unless its own
                is still staged from the first sample on.
        """
        # Only what we draw ourselves has no order anybody may rely on. (Ranks have to begin alike,
        # and a user's set_epoch() is for the user to call.)
        if self.group is None or not self.order.draws(loader):
            return epoch, 0
        if new and self.group.is_past(epoch):
            epoch = max(epoch, self.group.front()[0])
        return epoch, self.group.begin_in(epoch)

    def begin_python(self, epoch: int, order: Order) -> Any:
        """Agrees on an epoch's order; gives what counts its samples, None where they are not
        shared."""
        # (The rest of an epoch for another number of ranks is nobody else's.)
        if self.group is None or self._tally is None or order.begin.rank_base is not None:
            return None
        self.group.agree(epoch, whole_order(order))
        self.group.at(epoch, order.begin.turned)
        return self._tally.since_now()

    def _join(
        self, loader: Any, named: str, facts: Facts, record_bytes: int, run: int | None = None
    ) -> None:
        # What the environment names is for whole scripts: each of their data sets is apart.
        name = named + rank_of(loader) + ("" if loader.group else f".{facts.digest()}")
        self.group = Group.join(name, facts, record_bytes, loader.staging, run=run)
        loader.seed = self.group.seed


def _name_for(loader: Any, route: Route) -> str | None:
    """The group a loader is to join: the one it names, or the environment's if it can."""
    named = loader.group or os.environ.get(VARIABLE) or None
    if named is None:
        return None
    if reason := why_alone(loader, route):
        if loader.group is not None:  # an attribute changed since it was made
            raise ValueError(f"group={named!r} cannot be: {reason}")
        return None
    return named if _count(loader) else None


def _count(loader: Any) -> int:
    return len(loader.batch_sampler.sampler)
