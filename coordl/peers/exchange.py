"""What a process asks other servers for, and gives them: own cache, then the owner's, then storage.

Threads of this process ask, in the order of the epoch, one batch of items from one owner at a
time and several batches at once, while native threads read and prepare. Every item asked for ends
in one of two ways: provided, or read from storage. Whatever a server does, the samples are those
of a loader without peers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordl import _native
from coordl.errors import PeerError
from coordl.fetch.item import Items
from coordl.integrations import ray as on_ray
from coordl.peers import address as addresses
from coordl.peers.steps import reached
from coordl.user_warning import warn_user

IN_FLIGHT = 4  # requests at once, over all owners
ITEMS = 64  # of one request
REQUEST_BYTES = 32 << 20
HANDOVER_BYTES = 64 << 20  # read here for other servers and not sent yet; beyond it is dropped
SETTLE_S = float(os.environ.get("COORDL_PEERS_SETTLE_S", "5"))
_GROWTH = 1.5  # of items in the form their owner holds them


def check_peers(peers: Any, cache: Any) -> None:
    """Raises ValueError: a loader's peers= cannot be meant so. PeerError: pyarrow is missing."""
    if peers is None:
        return
    if cache is None:
        raise ValueError(
            "peers= shares caches among servers: give the size of this one's as cache="
        )
    if getattr(cache, "admission", "first") != "first":
        raise ValueError('peers= needs admission="first": each server holds the items that it owns')
    if isinstance(peers, str):
        if peers not in ("auto", "ray"):
            raise ValueError(f"peers is 'auto', 'ray' or a list of 'host:port', got {peers!r}")
        if peers == "ray" and importlib.util.find_spec("ray") is None:
            raise PeerError(f"peers='ray' needs Ray: {on_ray.EXTRA}")
    else:
        listed = list(peers)
        if not listed or len(set(listed)) != len(listed):
            raise ValueError(f"peers names each server once, this one too; got {listed}")
        for address in listed:
            addresses.split(address)
    if importlib.util.find_spec("pyarrow") is None:
        raise PeerError("peers= needs pyarrow: pip install 'data-stall-toolkit[servers]'")


@dataclass
class _Request:
    """Items of one minibatch, of one owner."""

    pass_: Pass
    client: Any
    ticket: Any
    rows: NDArray[np.int64]  # of the ticket
    items: NDArray[np.int64]  # of the data set
    keys: NDArray[np.uint64]
    size: int


class Exchange:
    """This process's part in the partitioned cache of one data set; its loaders share it."""

    # `revive` starts this node's server again where it was killed; `held` says that it is in use.
    def __init__(
        self, membership: Any, own: str, revive: Callable[[], None], held: int | None = None
    ) -> None:
        self.membership, self.own = membership, own
        self.pid = os.getpid()
        self.figures = dict.fromkeys(("handed_over", "handed_over_bytes", "damaged"), 0)
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._settling = _Settling()
        # Threads know the parts, not the whole: it ends with the last loader that has it.
        threads = [
            threading.Thread(target=_ask_on, args=(self._requests,), daemon=True)
            for _ in range(IN_FLIGHT)
        ]
        threads.append(
            threading.Thread(
                target=_look_on, args=(membership, revive, self._stop, self._settling), daemon=True
            )
        )
        for thread in threads:
            thread.start()
        self.close = weakref.finalize(
            self, _end, membership, self._requests, self._stop, threads, self.pid, held
        )

    def settle(self) -> None:
        """Waits up to SETTLE_S for those expected: who begins alone fills its cache for all."""
        settling = self._settling
        settling.ended.wait(SETTLE_S)
        settling.begun = True
        if settling.refused is not None:
            self.close()
            raise settling.refused
        self.membership.settled()

    def worker_options(self) -> tuple[int, int]:
        """(servers, handover_bytes) of native Workers."""
        return len(self.membership.live().names), HANDOVER_BYTES

    def begin(self, workers: Any, files: Any) -> Pass:
        """One over a source.FolderItems."""
        return Pass(self, workers, files.items, files.shares)

    def submit(self, request: _Request) -> None:
        self._requests.put(request)

    def describe(self) -> list[str]:
        """Lines for DataLoader.plan()."""
        live = self.membership.live()
        said = [f"peers now: {len(live.names)} server(s), this one at {self.own}"]
        gone = self.membership.failures
        return said + ([f"  lost so far: {gone}"] if gone else [])


def _ask_on(requests: queue.SimpleQueue[_Request | None]) -> None:
    while (request := requests.get()) is not None:
        # A thread that ended here would leave later requests, and their minibatches, unfinished.
        with contextlib.suppress(Exception):
            request.pass_.bring(request)
        del request


class _Settling:
    """The first looks of an exchange, in whose thread a store or a server may be waited for.

    Attributes:
        ended: all expected are there, or an address may not be spoken to.
        begun: the first epoch does not wait any more.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.begun = False
        self.refused: PeerError | None = None


def _look_on(membership: Any, revive: Any, stop: threading.Event, settling: _Settling) -> None:
    from coordl.peers.membership import LOOK_S

    said: set[str] = set()
    wait_s, deadline = 0.0, time.monotonic() + SETTLE_S
    while not stop.wait(wait_s):
        try:
            if wait_s == LOOK_S:
                revive()
            if membership.look():
                settling.ended.set()
            membership.tell_own_server()
        except Exception as error:  # an address that may not be spoken to, a port that was taken
            if isinstance(error, PeerError) and not settling.begun:
                settling.refused = error
                settling.ended.set()
                return
            # What it is may pass: the port of a server that was killed, memory for a process.
            if str(error) not in said:
                said.add(str(error))
                with contextlib.suppress(Warning):  # made an error by a filter
                    warn_user(f"peers: {error or repr(error)}")
        settled = settling.ended.is_set() or time.monotonic() > deadline
        wait_s = LOOK_S if settled else 0.1


def _end(
    membership: Any, requests: Any, stop: Any, threads: list, pid: int, held: int | None
) -> None:
    if held is not None:
        os.close(held)
    if os.getpid() != pid:
        return  # a fork: no thread is here
    stop.set()
    for _ in range(IN_FLIGHT):
        requests.put(None)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(timeout=10)
    membership.close()


class Pass:
    """One pass of native threads over a data set, and what it asks of other servers.

    Attributes:
        waiting_bytes: of items asked for, until told() that their minibatch was consumed.
    """

    def __init__(self, exchange: Exchange, workers: Any, items: Items, shares: Any) -> None:
        self._exchange, self._workers = exchange, workers
        self._items, self._shares = items, shares
        self.waiting_bytes = 0
        self._full: set[str] = set()  # runs that have no room any more
        self._giver = threading.Thread(target=self._give_on, daemon=True)
        self._ended = False
        self._giver.start()

    def announce(
        self, ticket: Any, rows: NDArray[np.int64], missing: Sequence[int]
    ) -> tuple[int, Sequence[int]]:
        """Announces a minibatch of items[rows], whose `missing` rows are in no cache here; asks
        their owners for those. (Bytes asked for, an estimate; the rows that storage is read for.)
        """
        at = np.asarray(missing, np.int64)
        items = rows[at]
        keys = self._items.keys[items]
        live, owner = self._owners(keys)
        remote = (owner > 0) & keys.any(axis=1)  # what could not be looked at has no key
        if not remote.any():
            self._workers.announce(ticket)
            return 0, missing
        read = at[~remote].tolist()
        at, keys, owner = at[remote], keys[remote], owner[remote]
        sizes = self._items.sizes[items[remote]]
        self._workers.announce(ticket, at)
        for number in np.unique(owner):
            of = np.flatnonzero(owner == number)
            for part in _parts(sizes[of]):
                chosen = of[part]
                size = int(_GROWTH * sizes[chosen].sum())
                client, asked_items = live.clients[number], rows[at[chosen]]
                self._exchange.submit(
                    _Request(self, client, ticket, at[chosen], asked_items, keys[chosen], size)
                )
        asked = int(_GROWTH * sizes.sum())
        self.waiting_bytes += asked
        return asked, read

    def consumed(self, asked: int) -> None:
        self.waiting_bytes -= asked

    def bring(self, request: _Request) -> None:
        """Ends every row of a request, whatever happens."""
        left = dict.fromkeys(range(len(request.rows)))
        try:
            self._ask(request, left)
        finally:
            if left:
                numbers = np.fromiter(left, np.int64)
                try:
                    self._read(request, numbers)
                except Exception:  # an audit hook may raise what it likes
                    self._workers.read(request.ticket, request.rows[numbers], "nobody")

    def _ask(self, request: _Request, left: dict[int, None]) -> None:
        from coordl.peers import wire

        membership, client = self._exchange.membership, request.client
        run = client.run  # another may be there when this one is judged
        if self._ended or client not in membership.live().clients:
            return
        try:
            reached("ask:begun")
            batch = client.get(request.keys, request.size)
            reached("ask:answered")
            for number, row in enumerate(request.rows.tolist()):
                item = wire.item_at(batch, number)
                if item is None:
                    continue
                if not self._workers.provide(request.ticket, row, *item):
                    self._exchange.figures["damaged"] += 1
                    raise wire.WireError("it gave bytes that are not the item asked for")
                del left[number]
            reached("ask:provided")
        except wire.WireError as error:
            membership.distrust(client, str(error), run)
        except Exception as error:  # lost, refused; anything else costs a read from storage as well
            membership.lost(client, error, run)

    def _read(self, request: _Request, numbers: NDArray[np.int64]) -> None:
        reached("read:begun")
        for item in request.items[numbers].tolist():  # as native.py does for its own reads
            sys.audit("open", self._items.paths[item], None, os.O_RDONLY)
        live, owner = self._owners(request.keys[numbers])  # perhaps others by now
        keepers = np.array(
            [
                "here" if client is None else "nobody" if client.run in self._full else "owner"
                for client in live.clients
            ]
        )[owner]
        for keeper in ("here", "owner", "nobody"):
            rows = request.rows[numbers[keepers == keeper]]
            if len(rows):
                self._workers.read(request.ticket, rows, keeper)

    def _owners(self, keys: NDArray[np.uint64]) -> tuple[Any, NDArray[np.int32]]:
        live = self._exchange.membership.live()
        return live, self._shares.owners(keys, live.names, live.weights)

    # -- what was read for others ------------------------------------------------------------

    def _give_on(self) -> None:
        while True:
            ended, fresh = self._ended, self._workers.handed_over(0.2)
            if ended and not fresh:
                return
            while fresh:
                part, size = [], 0
                while fresh and size < REQUEST_BYTES // 2:
                    part.append(fresh.pop())
                    size += len(part[-1][2])
                self._give(part)

    def _give(self, items: list[tuple[int, int, bytes]]) -> None:
        from coordl.peers.client import Refused
        from coordl.peers.wire import WireError

        keys = np.array([item[:2] for item in items], np.uint64)
        live, owner = self._owners(keys)
        membership, figures = self._exchange.membership, self._exchange.figures
        for number in np.unique(owner).tolist():
            client = live.clients[number]
            if client is None or client.run in self._full:
                continue
            part = [items[at] for at in np.flatnonzero(owner == number).tolist()]
            run = client.run
            try:
                reached("give:begun")
                taken = client.put(part)
                reached("give:taken")
            except (OSError, Refused, WireError) as error:
                membership.lost(client, error, run)
                continue
            figures["handed_over"] += taken
            figures["handed_over_bytes"] += sum(len(item[2]) for item in part) * taken // len(part)
            if taken == 0:
                self._full.add(client.run)

    def close(self) -> None:
        """Nothing is asked any more; the workers are closed, and what they have read for others
        is sent."""
        self._ended = True
        self._workers.close()
        if self._exchange.pid == os.getpid():
            self._giver.join(timeout=10)


def _parts(sizes: NDArray[np.int64]) -> list[slice]:
    """Runs of items that make one request each."""
    parts, begin, total = [], 0, 0
    for at, size in enumerate(sizes.tolist()):
        if at > begin and (at - begin == ITEMS or total + size > REQUEST_BYTES):
            parts.append(slice(begin, at))
            begin, total = at, 0
        total += size
    parts.append(slice(begin, len(sizes)))
    return parts


# -- how a process comes by its exchange -------------------------------------------------------

_known: weakref.WeakValueDictionary[tuple[Any, ...], Exchange] = weakref.WeakValueDictionary()
_made = threading.Lock()


def _renew_lock() -> None:
    global _made
    _made = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_renew_lock)


def exchange_of(peers: str | Sequence[str], arena: _native.Arena) -> Exchange | None:
    """This process's exchange for that arena; made, and its node's server started, at first.

    None: there is nobody to share with, as neither torch.distributed nor Ray runs.

    Raises:
        PeerError: no token, no address, or the server cannot be started; says what to do.
    """
    wanted = peers if isinstance(peers, str) else tuple(peers)
    key = (os.getpid(), arena.name, _native.arena_directory(), wanted)
    with _made:
        found = _known.get(key)
        if found is None:
            found = _join(wanted, arena)
            if found is not None:
                _known[key] = found
    return found


def _join(peers: str | tuple[str, ...], arena: _native.Arena) -> Exchange | None:
    from coordl.peers import node
    from coordl.peers.membership import Listed, Membership, Published, Source
    from coordl.peers.secret import Secrets

    secrets, budget = Secrets.from_environment(), int(arena.stats()["budget_bytes"])
    source: Source
    start = node.own_server
    if isinstance(peers, tuple):
        own = addresses.own_address(peers)
        host, port = addresses.split(own)
        secrets.check(host)
        start(arena.name, host, port)
        source = Listed(peers)
    else:
        job = None if peers == "ray" else _running_job()
        under_ray = on_ray.needed() if peers == "ray" else on_ray.running()
        if under_ray is not None:
            start = on_ray.own_server
        elif job is None:
            warn_user(
                "peers='auto' shares caches among the servers of a torch.distributed job, and none "
                "runs here: call init_process_group() before the first epoch, or list the servers."
            )
            return None
        host = on_ray.own_host() if job is None else addresses.cluster_host()
        secrets.check(host)
        own = start(arena.name, host)
        if job is None:
            source = on_ray.Servers(arena.name)
        else:
            store = job._get_default_store()
            source = Published(store, arena.name, job.get_rank(), job.get_world_size())
            source.publish(own)

    def revive() -> None:
        if node.running(arena.name) is None and arena.ensure_lease():
            reached("revive:begun")
            start(arena.name, *addresses.split(own))

    membership = Membership(source, own, budget, arena.name, secrets, patient=True)
    exchange = Exchange(membership, own, revive, node.hold(arena.name))
    exchange.settle()
    return exchange


def _running_job() -> Any:
    """torch's module of the job this process is a rank of; None where it is in none."""
    import torch.distributed as dist

    runs = dist.is_available() and dist.is_initialized()
    return dist.distributed_c10d if runs else None
