"""Asks one server for items, and gives it items. Whatever comes back is checked before it counts.

A live Flight client in a process that forks hangs its children. So connections belong to the
process that opened them and are closed before any fork of it; the next call opens one anew.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import secrets as random
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
from numpy.typing import NDArray

from coordl import _native
from coordl.errors import PeerError
from coordl.peers import wire
from coordl.peers.secret import Secrets

# A call's deadline: so long, and what its bytes take at a slow link's share. It is what finds a
# server that hangs; one that dies is found by its connection.
DEADLINE_S = float(os.environ.get("COORDL_PEERS_DEADLINE_S", "2"))
DEADLINE_RATE = 10e6  # bytes/s
_LET_GO_S = 5.0  # that a fork waits for gRPC, on a machine whose cores are all taken
_GRPC_THREADS = ("event_engine", "grpc", "lifeguard", "timer_manager")


class Refused(PeerError):
    """The server is there and will not do: another version, another token, another arena."""


class _Forks:
    """Keeps forks and calls apart: a fork waits for the calls in hand, which it cancels."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls = 0
        self._forking = 0
        self._cancels: dict[int, Any] = {}
        self.clients: weakref.WeakSet[PeerClient] = weakref.WeakSet()
        self._not_ours: set[str] = set()  # threads of gRPC that stay without connections of ours

    @contextmanager
    def call(self) -> Iterator[None]:
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._cancels.pop(threading.get_ident(), None)
                self._changed.notify_all()

    def cancel_with(self, cancel: Any) -> None:
        with self._changed:
            self._cancels[threading.get_ident()] = cancel
            if self._forking:
                cancel()

    def before(self) -> None:
        with self._changed:
            self._forking += 1
            for cancel in self._cancels.values():
                cancel()
            while self._calls:
                self._changed.wait()
        for client in list(self.clients):
            client.drop()
        self._let_go()

    def _let_go(self) -> None:
        """Waits for the end of gRPC's threads, which the last connection takes with it.

        A child forked beside them has gRPC's locks as they were, and aborts or hangs when it opens
        a connection; or has Python's lock of thread states, while one of them gives back what it
        was sent (Python 3.11). Dropped is not gone: a call that just failed in another thread
        holds its connection for as long as its error is looked at.
        """
        begin, collect_s = time.monotonic(), 0.0
        while new := _grpc_threads() - self._not_ours:
            waited_s = time.monotonic() - begin
            if waited_s > _LET_GO_S:
                self._not_ours |= new  # of somebody else's gRPC: not waited for again
                return
            if waited_s >= collect_s:  # a connection in a cycle would live on
                gc.collect()
                collect_s = 2 * waited_s + 0.01
            time.sleep(0.001)

    def after(self) -> None:
        with self._changed:
            self._forking -= 1
            self._changed.notify_all()

    def after_in_child(self) -> None:
        self.__init__()  # type: ignore[misc]  # no thread of the parent's is here


def _grpc_threads() -> set[str]:
    """Threads of this process that are gRPC's, by their names; their numbers."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as name:
            if name.read().startswith(_GRPC_THREADS):
                found.add(task)
    return found


_forks = _Forks()
os.register_at_fork(
    before=_forks.before, after_in_parent=_forks.after, after_in_child=_forks.after_in_child
)


class PeerClient:
    """One server, by its address. Any thread of any process may call it.

    Attributes:
        address: "host:port".
        arena: name the server's must have.
        run: which run of the server answered the latest hello; empty before.
        budget_bytes: of its arena, as it said then.
    """

    def __init__(self, address: str, arena: str, secrets: Secrets) -> None:
        self.address, self.arena, self._secrets = address, arena, secrets
        self.run, self.budget_bytes = "", 0
        self._lock = threading.Lock()
        self._client: Any = None
        self._attempts = 0  # to connect
        self._failed: tuple[type[Exception], str] = OSError, ""  # the latest of them
        secrets.check(address.rpartition(":")[0].strip("[]"))

    def drop(self) -> bool:
        """Closes the connection, if there is one; the next call opens another."""
        client, self._client = self._client, None
        if client is None:
            return False
        client.close()
        return True

    def hello(self) -> None:
        """Connects, and makes sure that it is a server of ours with our token.

        Raises:
            Refused: it is none, or another version's or arena's.
            OSError: nobody answers there, in time.
        """
        with self._calling():
            self._connected()

    def get(self, keys: NDArray[np.uint64], expected_bytes: int) -> pa.RecordBatch:
        """What it holds of the items, in one batch of as many rows, see wire.item_at().

        Raises:
            OSError: it cannot be reached, or not in time.
            WireError, Refused: it answers what it should not.
        """
        with self._calling():
            client = self._connected()
            reader = client.do_get(
                flight.Ticket(wire.ticket_of(keys)), self._options(expected_bytes)
            )
            _forks.cancel_with(reader.cancel)
            try:
                batches = [chunk.data for chunk in reader]
            finally:
                del reader
            if len(batches) != 1:
                raise wire.WireError(f"{len(batches)} record batches came, not one")
            return wire.checked(batches[0], wire.reply_schema(), len(keys))

    def put(self, items: Sequence[tuple[int, int, bytes]]) -> int:
        """Offers (high, low, bytes) to it; how many it holds now. Raises as get() does."""
        sums = [_native.checksum(data, high, low) for high, low, data in items]
        batch = wire.put_of(items, sums)
        size = sum(len(data) for _, _, data in items)
        with self._calling():
            client = self._connected()
            descriptor = flight.FlightDescriptor.for_command(wire.MAGIC)
            writer, reader = client.do_put(descriptor, wire.put_schema(), self._options(size))
            try:
                writer.write_batch(batch)
                writer.done_writing()
                reply = reader.read()
                writer.close()
            finally:
                del writer, reader
            told = _json(None if reply is None else reply.to_pybytes())
        taken = told.get("taken")
        if type(taken) is not int or not 0 <= taken <= len(items):
            raise wire.WireError(f"it says that it took {taken!r} of {len(items)} items")
        return taken

    def stats(self) -> dict[str, Any]:
        """What the server counts; for `coordl status`. Raises as get() does."""
        return self._act("stats", b"")

    def tell_members(self, addresses: Sequence[str]) -> None:
        """Tells this node's own server who is in the job, for `coordl status`."""
        self._act("members", json.dumps(list(addresses)).encode())

    def _act(self, kind: str, body: bytes) -> dict[str, Any]:
        with self._calling():
            client = self._connected()
            results = list(client.do_action(flight.Action(kind, body), self._options(len(body))))
        return _json(results[0].body.to_pybytes() if results else None, wire.TOLD_BYTES)

    def _options(self, size: int) -> flight.FlightCallOptions:
        headers = [(b"coordl-proof", self._secrets.proof("client", self.run).encode())]
        return flight.FlightCallOptions(timeout=DEADLINE_S + size / DEADLINE_RATE, headers=headers)

    @contextmanager
    def _calling(self) -> Iterator[None]:
        with _forks.call():
            try:
                yield
            except flight.FlightUnauthenticatedError as error:
                self.run = ""
                self.drop()  # a restarted server wants another proof; the next call asks for it
                raise Refused(f"{self.address} refuses our token: {_said(error)}") from None
            except (pa.ArrowException, flight.FlightError, OSError) as error:
                if isinstance(error, wire.WireError):
                    raise
                self.drop()
                raise OSError(f"{self.address}: {_said(error)}") from None

    def _connected(self) -> Any:
        attempts = self._attempts
        with self._lock:
            if self._client is None:
                if self._attempts != attempts:  # another thread's failed while this one waited
                    raise self._failed[0](self._failed[1])
                self._attempts += 1
                try:
                    self._client = self._opened()
                except Exception as error:
                    kind = type(error) if isinstance(error, (Refused, wire.WireError)) else OSError
                    self._failed = kind, _said(error)  # not itself: it holds this frame
                    raise
                _forks.clients.add(self)
            return self._client

    def _opened(self) -> Any:
        tls = self._secrets.tls
        options: dict[str, Any] = {}
        if tls is not None:
            options = {
                "tls_root_certs": tls.authority,
                "cert_chain": tls.certificate,
                "private_key": tls.key,
            }
        scheme = "grpc+tls" if tls else "grpc+tcp"
        limits = [
            ("grpc.max_receive_message_length", wire.MOST_BYTES),
            # A connection of our own: another's failure is not remembered for ours.
            ("grpc.use_local_subchannel_pool", 1),
            # How long gRPC tries to connect, and keeps its threads for that, which a fork waits
            # for, though the call has failed and the client is closed: else 20 s.
            ("grpc.min_reconnect_backoff_ms", int(DEADLINE_S * 1000) + 20),
        ]
        client = flight.FlightClient(
            f"{scheme}://{self.address}", generic_options=limits, **options
        )
        try:
            nonce = random.token_hex(16)
            body = json.dumps({"version": wire.VERSION, "nonce": nonce}).encode()
            deadline = flight.FlightCallOptions(timeout=DEADLINE_S)
            results = list(client.do_action(flight.Action("hello", body), deadline))
            self._check(_json(results[0].body.to_pybytes() if results else None), nonce)
        except flight.FlightUnavailableError as error:
            client.close()
            said = _said(error)
            raise OSError(said if "refused" in said else f"{said} ({self._hint()})") from None
        except BaseException:
            client.close()
            raise
        return client

    def _hint(self) -> str:
        """What may be the matter where somebody is there and does not speak with us."""
        if self._secrets.tls is None:
            return "does it expect TLS, or is it another service?"
        return (
            "does it speak TLS; are both certificates of COORDL_TLS_CA's, valid by both clocks, "
            "and is its one for this address?"
        )

    def _check(self, told: dict[str, Any], nonce: str) -> None:
        if told.get("version") != wire.VERSION:
            raise Refused(
                f"{self.address} speaks version {told.get('version')!r}, this is {wire.VERSION}: "
                "install one version of data-stall-toolkit on all servers"
            )
        run, arena, budget = (told.get(name) for name in ("run", "arena", "budget_bytes"))
        words = ("server", nonce, str(run), str(arena), str(budget))
        if not self._secrets.proves(str(told.get("proof")), *words):
            raise Refused(
                f"{self.address} does not have our token: COORDL_TOKEN, or the file that `coordl "
                "token` makes, must be the same on all servers"
            )
        if arena != self.arena:
            raise Refused(
                f"{self.address} serves the cache {arena!r}, not {self.arena!r}: another data set"
            )
        if type(budget) is not int or not 0 <= budget < 1 << 63:
            raise wire.WireError(f"it says that it may hold {budget!r} bytes")
        self.run, self.budget_bytes = str(run), max(1, budget)


def _json(body: bytes | None, most: int = wire.HELLO_BYTES) -> dict[str, Any]:
    try:
        told = json.loads(body) if body and len(body) <= most else None
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise wire.WireError("no answer that can be read")
    return told


def _said(error: Exception) -> str:
    """The first line of what Flight says, without what it tells of its own insides."""
    said = str(error).partition("\n")[0].partition(". Detail:")[0]
    return "connection refused" if "Connection refused" in said else said
