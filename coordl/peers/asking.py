"""Samples that Python makes: one item asked of its owner, where it is missed.

Worker processes have connections of their own, opened at their first miss: none may live through
a fork. Who is in the job they know from the loader, as it was when they started.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordl import _native
from coordl.peers.ownership import Shares
from coordl.peers.steps import reached
from coordl.user_warning import warn_user

_LOOK_S = 5.0  # between looks for who is lost or late
_MOST_GROWTH, _LEAST_ROOM = 4, 64 << 10  # as native/prep/row.cpp has them


_first = threading.Lock()  # of those that begin in this process


def _renew_lock() -> None:
    global _first
    _first = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class Asking:
    """Who owns an item, what its owner gives, and what it takes. Picklable.

    Args:
        arena: name of the data set's.
        own: this node's address, one of `addresses`.
        budget_bytes: of this node's arena.
        form: in which JPEGs are given to their owners; "auto" as they are.
        shares: the data set's items, shared among the servers.
    """

    def __init__(
        self,
        arena: str,
        own: str,
        addresses: Sequence[str],
        budget_bytes: int,
        form: str,
        shares: Shares,
    ) -> None:
        self._given = arena, own, tuple(addresses), budget_bytes, form, shares
        self.form, self._shares = form, shares
        self._pid, self._looked_at = 0, 0.0
        self._members: Any = None
        self._full: set[str] = set()
        self._look: threading.Thread | None = None

    def __reduce__(self) -> tuple:
        return Asking, self._given

    def owner(self, key: NDArray[np.uint64]) -> Any:
        """The client of the item's owner; None: it is this node."""
        live = self._membership().live()
        return live.clients[int(self._shares.owners(key, live.names, live.weights)[0])]

    def get(self, client: Any, key: NDArray[np.uint64], size: int) -> bytes | None:
        """The item, which is `size` bytes as it lies in storage, if its owner holds it."""
        from coordl.peers.wire import WireError, item_at

        members, run = self._membership(), client.run
        try:
            reached("ask:begun")
            item = item_at(client.get(key.reshape(1, 2), 2 * size), 0)
            reached("ask:answered")
            if item is None:
                return None
            data = _checked(*item, key, size)
            if data is None:
                raise WireError("it gave bytes that are not the item asked for")
            return data
        except WireError as error:
            members.distrust(client, str(error), run)
        except Exception as error:  # lost, refused; anything else costs a read as well
            members.lost(client, error, run)
        return None

    def give(self, client: Any, key: NDArray[np.uint64], data: bytes) -> bool:
        """Whether its owner holds the item now."""
        if self._is_lost(client):
            return False
        (high, low), run = key.tolist(), client.run
        try:
            reached("give:begun")
            taken = client.put([(high, low, data)])
            reached("give:taken")
            if taken:
                return True
            self._full.add(client.run)
        except Exception as error:
            self._membership().lost(client, error, run)
        return False

    def has_room(self, client: Any) -> bool:
        return client.run not in self._full and not self._is_lost(client)

    def _is_lost(self, client: Any) -> bool:
        """Then it is not asked again: each time would take a deadline."""
        return client not in self._membership().live().clients

    def _membership(self) -> Any:
        if self._pid != os.getpid():
            with _first:  # objects of remote storage are fetched by several threads
                if self._pid != os.getpid():
                    self._begin()
        missed = len(self._members.live().names) < len(self._given[2])
        looks = self._look is not None and self._look.is_alive()
        if missed and not looks and time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            # Beside the samples: one that hangs takes its deadline each time. No daemon, as gRPC's
            # calls do not outlive the interpreter well.
            self._look = threading.Thread(target=self._members.look, name="coordl-look")
            self._look.start()
        return self._members

    def _begin(self) -> None:
        from coordl.peers.membership import Listed, Membership
        from coordl.peers.secret import Secrets

        arena, own, addresses, budget, *_ = self._given
        secrets = Secrets.from_environment()
        tells: list[bool] = []  # no method: members that know us would live on in a cycle

        def tell(what: str) -> None:
            if tells:
                warn_user(what)

        members = Membership(Listed(addresses), own, budget, arena, secrets, tell)
        # Who is not there now the loader's process has told: not each worker of each epoch.
        members.look()
        tells.append(True)
        self._look = None  # a fork: it is the parent's
        self._members, self._looked_at = members, time.monotonic()
        self._pid = os.getpid()  # last: from now on others take what is there


class OwnersCache:
    """An item's owner, as a cache that only takes: for fetch(), in place of this node's."""

    def __init__(self, asking: Asking, client: Any) -> None:
        self._asking, self._client = asking, client
        self.form = asking.form

    def get(self, key: Any) -> None:
        """It was asked already."""

    def takes(self, key: Any, size: int) -> bool:
        return self._asking.has_room(self._client)

    def admit(self, key: Any, data: bytes) -> bool:
        return self._asking.give(self._client, key, data)


def _checked(given: memoryview, checksum: int, key: NDArray[np.uint64], size: int) -> bytes | None:
    """A copy of it, if it is that item: as native/prep/row.cpp checks it."""
    if not len(given) or len(given) > _MOST_GROWTH * size + _LEAST_ROOM:
        return None
    data = bytes(given)
    if _native.checksum(data, *key.tolist()) != checksum:
        return None
    right = len(data) == size if _native.form(data) == "original" else _native.check_item(data)
    return data if right else None
