"""Who is there: which servers are known, which of them answer, and what each of them may hold.

Addresses come from a list of the user's, from Ray (coordl/integrations/ray.py), or through the
store of the running torch.distributed job, by set and get alone: not every rank makes a loader, so
nothing here is collective. Who is alive is found by speaking to them: a connection that breaks, or
a deadline that passes. A lost store costs newcomers, nothing else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from coordl.peers.client import PeerClient, Refused
from coordl.peers.secret import Secrets
from coordl.peers.steps import reached
from coordl.peers.wire import WireError
from coordl.user_warning import warn_user

STORE_S = 2.0  # that the store may take to answer
LOOK_S = 1.0  # between looks for newcomers and for who is back


class Source(Protocol):
    """Who knows the addresses of servers.

    Attributes:
        store: what it asks, for people.
    """

    store: str

    def addresses(self) -> set[str]:
        """Those known by now. Raises Exception where that cannot be asked now."""

    def complete(self) -> bool:
        """Whether no more are expected."""


class Listed:
    """The user's own list."""

    store = "the list"

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = set(addresses)

    def addresses(self) -> set[str]:
        return self._addresses

    def complete(self) -> bool:
        return True


class Published:
    """The store of a torch.distributed job: each rank that has a loader publishes its node's."""

    store = "torch.distributed's store"

    # torch has no deadline for some of what is asked of a store: whose host hangs or is cut off
    # would keep who asks for minutes. So it is asked in a thread of its own.
    def __init__(self, store: Any, arena: str, rank: int, world: int) -> None:
        self._given, self._prefix = store, f"coordl/peers/{arena}"
        self._store: Any = None
        self._rank, self._world = rank, world
        self._own: str | None = None  # to be published
        self._seen = -1  # changes published when last looked
        self._known: dict[int, str] = {}
        self._asking: threading.Thread | None = None

    def publish(self, address: str) -> None:
        """Says where this rank's node is, with the next addresses()."""
        self._own = address

    def addresses(self) -> set[str]:
        failed: list[Exception] = []

        def ask() -> None:
            try:
                self._ask()
            except Exception as error:
                failed.append(error)

        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=ask, daemon=True)
            self._asking.start()
        self._asking.join(STORE_S)
        if self._asking.is_alive():
            raise TimeoutError(f"no answer within {STORE_S:.0f} s")
        if failed:
            raise failed[0]
        return set(self._known.values())

    def _ask(self) -> None:
        from torch.distributed.distributed_c10d import PrefixStore

        if self._store is None:
            # Another connection: what waits on the job's own would hold us up, and we it.
            clone = getattr(self._given, "clone", None)
            own = self._given if clone is None else clone()
            own.set_timeout(timedelta(seconds=10))
            self._store = PrefixStore(self._prefix, own)
        if self._own is not None:
            reached("publish:begun")
            self._store.set(f"member/{self._rank}", self._own)
            reached("publish:set")
            self._store.add("changes", 1)
            self._own = None
        changes = self._store.add("changes", 0)
        if changes != self._seen:
            known = dict(self._known)
            for rank in range(self._world):
                key = f"member/{rank}"
                if self._store.check([key]):
                    known[rank] = self._store.get(key).decode()
            self._known, self._seen = known, changes

    def complete(self) -> bool:
        return len(self._known) == self._world


@dataclass(frozen=True)
class Live:
    """The members at one time; `names` and `weights` are what ownership is computed from.

    Attributes:
        clients: of the others; None in the place of this server itself.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    clients: tuple[PeerClient | None, ...]


class Membership:
    """The servers of a job as this process sees them. Any thread may call it.

    Args:
        own: this node's address, one of those the source knows.
        budget_bytes: of its arena.
        tell: gets one sentence for each change; warns by default.
        patient: until settled() is called, nothing is told of those that do not answer or refuse.
    """

    def __init__(
        self,
        source: Source,
        own: str,
        budget_bytes: int,
        arena: str,
        secrets: Secrets,
        tell: Callable[[str], None] = warn_user,
        patient: bool = False,
    ) -> None:
        self._source, self._own, self._arena, self._secrets = source, own, arena, secrets
        self._budget, self._say = max(1, budget_bytes), tell
        self._lock = threading.Lock()  # guards what follows
        self._clients: dict[str, PeerClient] = {}
        self._answers: set[str] = set()
        self._lost: dict[str, str] = {}  # why; told once
        self._distrusted: dict[str, str] = {}  # address -> run that is not asked any more
        # Why, and what to say; not told yet.
        self._late: dict[str, tuple[str, str]] | None = {} if patient else None
        self._store_lost = False
        self._told: tuple[str, ...] = ()  # to our own server
        self.failures = 0

    def live(self) -> Live:
        with self._lock:
            there = sorted(self._answers)
            clients = [self._clients[name] for name in there]
        return Live(
            (self._own, *there),
            (float(self._budget), *(float(client.budget_bytes) for client in clients)),
            (None, *clients),
        )

    def known(self) -> tuple[str, ...]:
        """Addresses of all servers there ever were, this one first."""
        with self._lock:
            return (self._own, *sorted(self._clients))

    def look(self) -> bool:
        """Speaks to those that do not answer yet, or any more. True: all expected are there."""
        try:
            known = self._source.addresses()
        except Exception as error:  # a store that is gone raises RuntimeError, DistError, ...
            if not self._store_lost:
                self._store_lost = True
                self._tell(
                    f"peers: {self._source.store} cannot be asked ({_brief(error)}). Servers "
                    "known so far serve on; others are not found while that lasts."
                )
            known = set(self._clients)
        else:
            self._store_lost = False
        lacking = []
        for address in sorted(known - {self._own}):
            with self._lock:
                if address in self._answers:
                    continue
                if address not in self._clients:
                    self._clients[address] = PeerClient(address, self._arena, self._secrets)
                lacking.append(self._clients[address])
        # All at once: each that hangs takes its deadline.
        threads = [
            threading.Thread(target=self._greet, args=(client,), daemon=True) for client in lacking
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self._lock:
            return self._source.complete() and self._answers >= known - {self._own}

    def tell_own_server(self) -> None:
        """Who is there now, for `coordl status`; once for each change."""
        names = self.live().names
        if names == self._told:
            return
        own = PeerClient(self._own, self._arena, self._secrets)
        try:
            own.tell_members(names)
            self._told = names
        except Refused as error:  # others will find so too
            self._note(self._own, _brief(error), "is this node's own server and not ours")
        except (OSError, WireError):  # a convenience
            pass
        own.drop()

    def _greet(self, client: PeerClient) -> None:
        address = client.address
        reached("greet:begun")
        try:
            client.drop()
            client.hello()
            reached("greet:answered")
        except WireError as error:
            self._note(address, _brief(error), "does not answer yet")
            return
        except (OSError, Refused) as error:  # perhaps a server of the job before, about to end
            what = "is not asked" if isinstance(error, Refused) else "does not answer yet"
            with self._lock:
                if self._late is not None:
                    self._late[address] = _brief(error), what
                    return
            self._note(address, _brief(error), what)
            return
        except Exception as error:  # whatever it answers: it is not there for us
            self._note(address, repr(error)[:300], "does not answer as it should")
            return
        with self._lock:
            if self._distrusted.get(address) == client.run:
                return
            self._answers.add(address)
            if self._late:
                self._late.pop(address, None)
            was_lost = self._lost.pop(address, None) is not None
        if was_lost:
            self._tell(f"peers: {address} is there; it owns its share of the items from now on.")

    def settled(self) -> None:
        """Who does not answer by now is late, and told."""
        with self._lock:
            late, self._late = self._late or {}, None
        for address, (why, what) in late.items():
            self._note(address, why, what)

    def lost(self, client: PeerClient, error: Exception, run: str) -> None:
        """It failed; it owns nothing until it answers again.

        `run` is client.run when it was asked: of one that was started anew meanwhile this says
        nothing.
        """
        with self._lock:
            if client.address not in self._answers or client.run not in ("", run):
                return
            self._answers.discard(client.address)
            self.failures += 1
        reached("lost:noted")
        said = "is lost; its items come from storage and have other owners from now on"
        self._note(client.address, _brief(error), said)

    def distrust(self, client: PeerClient, why: str, run: str) -> None:
        """It answered what it must not: it is not asked any more, until it is started anew."""
        with self._lock:
            self._distrusted[client.address] = run
        self.lost(client, WireError(why), run)

    def _note(self, address: str, why: str, what: str) -> None:
        with self._lock:
            known = address in self._lost
            self._lost[address] = why
        if not known:
            self._tell(f"peers: {address} {what} ({why.removeprefix(address).lstrip(': ')})")

    def _tell(self, what: str) -> None:
        with contextlib.suppress(Warning):  # made an error by a filter: not in these threads
            self._say(what)

    def close(self) -> None:
        with self._lock:
            self._answers.clear()
            clients = list(self._clients.values())
        for client in clients:
            client.drop()


def _brief(error: Exception) -> str:
    return (str(error).partition("\n")[0] or repr(error))[:300]
