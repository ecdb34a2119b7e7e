"""The process beside a node's cache that serves its items to other servers, and takes theirs.

`python -m coordl.peers.server --name ARENA --host ADDRESS --port PORT`, started by who needs it
(node.py). There is one for each arena of a node. It holds a lease of the arena as any user does,
and ends when it has been the only one for --linger seconds: a restarted job finds its cache full.

A stopped or damaged one answers nothing that counts: clients have deadlines and check everything.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets as random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from coordl import _native
from coordl.errors import PeerError
from coordl.peers import wire
from coordl.peers.address import record_path
from coordl.peers.secret import Secrets
from coordl.peers.steps import reached

_LOOK_S = 0.25  # between looks at who else uses the arena


class _Guard(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Lets calls through that prove to have the token. "hello" is how one gets that far."""

    def __init__(self, secrets: Secrets, run: str) -> None:
        super().__init__()
        self._secrets, self._run = secrets, run

    def start_call(self, info: Any, headers: Any) -> _Passed:
        proofs = [value for name, value in headers.items() if name.lower() == "coordl-proof"]
        said = str(proofs[0][0]) if proofs and proofs[0] else ""
        passed = self._secrets.proves(said, "client", self._run)
        if not passed and info.method != flight.FlightMethod.DO_ACTION:
            raise flight.FlightUnauthenticatedError("wrong token")
        return _Passed(passed)


class _Passed(flight.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, passed: bool) -> None:
        super().__init__()
        self.passed = passed


class ItemServer(flight.FlightServerBase):  # type: ignore[misc]
    """Serves one arena. Called from gRPC's threads, any number at once."""

    def __init__(self, arena: _native.Arena, host: str, port: int, secrets: Secrets) -> None:
        self._arena, self._secrets = arena, secrets
        self.run_id = random.token_hex(16)
        self._lock = threading.Lock()  # guards the counts
        self._counts = dict.fromkeys(
            ("requests", "served_items", "served_bytes", "taken_items", "taken_bytes", "refused"), 0
        )
        self._members: list[str] = []  # of the job, as this node's loaders know them
        tls = secrets.tls
        options: dict[str, Any] = {}
        if tls is not None:
            options = {
                "tls_certificates": [(tls.certificate, tls.key)],
                "verify_client": True,
                "root_certificates": tls.authority,
            }
        scheme = "grpc+tls" if tls else "grpc+tcp"
        shown = f"[{host}]" if ":" in host else host
        super().__init__(
            f"{scheme}://{shown}:{port}",
            middleware={"guard": _Guard(secrets, self.run_id)},
            **options,
        )
        self.address = f"{shown}:{self.port}"

    def _count(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def do_get(self, context: Any, ticket: Any) -> flight.RecordBatchStream:
        try:
            keys = wire.keys_of(ticket.ticket)
        except wire.WireError as error:
            raise flight.FlightServerError(str(error)) from None
        reached("serve:asked")
        items: list[memoryview | None] = []
        sums: list[int] = []
        size = 0
        for high, low in keys.tolist():
            item = self._arena.find(high, low)
            if item is not None and size + len(item) > wire.MOST_BYTES // 2:
                item = None  # who wants so much asks again
            items.append(item)
            sums.append(0 if item is None else _native.checksum(item, high, low))
            size += 0 if item is None else len(item)
        held = sum(item is not None for item in items)
        self._count(requests=1, served_items=held, served_bytes=size)
        batch = wire.reply_of(items, sums)
        reached("serve:found")
        return flight.RecordBatchStream(
            pa.RecordBatchReader.from_batches(wire.reply_schema(), [batch])
        )

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        if descriptor.command != wire.MAGIC:
            raise flight.FlightServerError(f"no message of version {wire.VERSION}")
        reached("take:given")
        taken = refused = size = 0
        for chunk in reader:
            try:
                batch = wire.checked(chunk.data, wire.put_schema())
            except wire.WireError as error:
                raise flight.FlightServerError(str(error)) from None
            high, low = batch.column("high").to_pylist(), batch.column("low").to_pylist()
            for row in range(batch.num_rows):
                item = wire.item_at(batch, row)
                if item is not None and self._take(high[row], low[row], *item):
                    taken += 1
                    size += len(item[0])
                else:
                    refused += 1
        self._count(taken_items=taken, taken_bytes=size, refused=refused)
        reached("take:admitted")
        reply = {"taken": taken, "refused": refused}
        writer.write(pa.py_buffer(json.dumps(reply).encode()))

    def _take(self, high: int, low: int, item: memoryview, checksum: int) -> bool:
        data = bytes(item)  # what is checked is what is kept
        if not data or _native.checksum(data, high, low) != checksum:
            return False
        reached("take:checked")
        try:
            return self._arena.admit(high, low, data)
        except ValueError:  # its structure is not that of an item of ours
            return False

    def do_action(self, context: Any, action: Any) -> Iterator[bytes]:
        if action.type == "hello":
            yield json.dumps(self._hello(action.body.to_pybytes())).encode()
            return
        if not context.get_middleware("guard").passed:
            raise flight.FlightUnauthenticatedError("wrong token")
        if action.type == "members":
            self._members = _addresses(action.body.to_pybytes())
        elif action.type != "stats":
            raise flight.FlightServerError(f"no such action: {action.type!r}")
        yield json.dumps(self.stats()).encode()

    def _hello(self, body: bytes) -> dict[str, Any]:
        try:
            said: Any = json.loads(body) if len(body) <= wire.HELLO_BYTES else None
            nonce = str(said["nonce"])[:128]
        except (ValueError, TypeError, KeyError):
            raise flight.FlightServerError("no hello") from None
        reached("hello:asked")
        budget = self._arena.stats()["budget_bytes"]
        told = {"version": wire.VERSION, "run": self.run_id, "arena": self._arena.name}
        words = ("server", nonce, self.run_id, self._arena.name, str(budget))
        return {**told, "budget_bytes": budget, "proof": self._secrets.proof(*words)}

    def stats(self) -> dict[str, Any]:
        arena = self._arena.stats()
        figures = {name: arena[name] for name in ("budget_bytes", "used_bytes", "items", "users")}
        with self._lock:
            counts = dict(self._counts)
        told = {"pid": os.getpid(), "arena": self._arena.name, "members": self._members}
        return {**figures, **counts, **told}


def _addresses(body: bytes) -> list[str]:
    try:
        said = json.loads(body) if len(body) <= wire.TOLD_BYTES else None
    except ValueError:
        said = None
    if not isinstance(said, list):
        raise flight.FlightServerError("no list of members")
    return [str(each)[:300] for each in said]


def serve(name: str, host: str, port: int, linger_s: float) -> int:
    """Until nobody else has used the arena for `linger_s`. 3: another server has it already."""
    path = record_path(name)
    record = _locked(path)
    if record is None:
        return 3
    reached("begin:locked")
    try:
        secrets = Secrets.from_environment()
        secrets.check(host)
        arena = _native.Arena.open(name, 1 << 20, 1024, raise_budget=False)
        try:
            server = ItemServer(arena, host, port, secrets)
        except pa.ArrowException as error:
            why = _why_not(host, port) or str(error)
            print(f"cannot listen at {host}:{port}: {why}", file=sys.stderr)
            arena.close()
            return 4
        reached("begin:listens")
        told = {"address": server.address, "pid": os.getpid(), "run": server.run_id}
        told["settings"] = secrets.fingerprint(server.run_id, wire.VERSION)
        os.pwrite(record, json.dumps(told).encode(), 0)
        reached("begin:told")
        _wait_for_the_last(arena, linger_s)
        reached("end:alone")
        server.shutdown()
        reached("end:shut")
        arena.close()
    finally:
        path.unlink(missing_ok=True)
        os.close(record)
    return 0


def _why_not(host: str, port: int) -> str:
    """What the system says of listening there, which Flight keeps to itself; empty: nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _locked(path: Path) -> int | None:
    """The record, locked for us alone; None while another server has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        record = os.open(path, flags, 0o600)
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(record).st_ino == path.stat().st_ino:
                os.ftruncate(record, 0)  # what a killed one said
                return record
        except BlockingIOError:
            os.close(record)
            return None
        except FileNotFoundError:
            pass
        os.close(record)  # the one before us has just removed it


def _wait_for_the_last(arena: _native.Arena, linger_s: float) -> None:
    alone_since: float | None = None
    while True:
        time.sleep(_LOOK_S)
        # A cleared arena is nobody's any more: its users have made another.
        if arena.stats()["users"] > 1 and arena.ensure_lease():
            alone_since = None
            continue
        now = time.monotonic()
        alone_since = now if alone_since is None else alone_since
        if now - alone_since >= linger_s:
            return


def main() -> None:
    """Entry point of `python -m coordl.peers.server`."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--name", required=True, help="the arena")
    parser.add_argument("--host", required=True, help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0: any")
    parser.add_argument("--linger", type=float, default=10.0, help="seconds to stay alone")
    given = parser.parse_args()
    os.chdir("/")
    try:
        sys.exit(serve(given.name, given.host, given.port, given.linger))
    except (PeerError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
