"""One server asked by one client: what it holds comes whole, what is wrong is refused by name."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from emulated import wait_until

from coordl import _native
from coordl.errors import PeerError
from coordl.peers import client as client_module
from coordl.peers import wire
from coordl.peers.client import PeerClient, Refused
from coordl.peers.secret import Secrets

KEYS = np.array([[1, 2], [3, 4], [2**64 - 1, 2**63], [5, 6]], np.uint64)
ITEMS = [b"short", os.urandom(100_000), os.urandom(70_000)]


def client_of(node: Any) -> PeerClient:
    return PeerClient(node.address, node.name, Secrets.from_environment())


def filled(node: Any) -> Any:
    for key, item in zip(KEYS.tolist(), ITEMS, strict=False):
        assert node.arena.admit(*key, item)
    return node.start()


def test_items_held_come_whole_and_others_are_null(make_node) -> None:
    # given a node that holds three of four items
    client = client_of(filled(make_node()))
    # when all are asked for, one of them twice
    keys = KEYS[[3, 0, 1, 2, 1]]
    batch = client.get(keys, 300_000)
    # then each comes with the checksum of its key and bytes, and what is not held is null
    found = [wire.item_at(batch, row) for row in range(5)]
    assert found[0] is None
    assert [bytes(item[0]) for item in found[1:]] == [*ITEMS, ITEMS[1]]
    for (high, low), (item, checksum) in zip(keys[1:].tolist(), found[1:], strict=True):
        assert _native.checksum(item, high, low) == checksum
    stats = client.stats()
    assert (stats["requests"], stats["served_items"]) == (1, 4)
    client.drop()


def test_items_given_are_held_until_there_is_no_room(make_node) -> None:
    node = make_node(budget=1 << 20).start()
    client = client_of(node)
    items = [(7, at, os.urandom(300_000)) for at in range(5)]
    assert client.put(items) == 3
    assert bytes(node.arena.find(7, 0)) == items[0][2]
    assert node.arena.find(7, 4) is None
    assert client.put(items[:1]) == 1  # held already
    assert client.stats()["refused"] == 2
    client.drop()


def test_items_that_are_damaged_or_no_items_of_ours_are_not_taken(make_node, photos) -> None:
    # given half of a packed item, and one whose checksum is another's
    node = make_node().start()
    client = client_of(node)
    packed = _native.recode(photos[0].read_bytes(), "packed")
    packed = packed[: len(packed) // 2]
    batch = wire.put_of([(1, 1, b"some bytes that are long enough")], [123])
    assert not _native.check_item(packed)
    # when they are offered
    assert client.put([(2, 2, packed), (3, 3, b"")]) == 0
    descriptor = flight.FlightDescriptor.for_command(wire.MAGIC)
    writer, reader = client._connected().do_put(descriptor, wire.put_schema(), client._options(1))
    writer.write_batch(batch)
    writer.done_writing()
    told = reader.read().to_pybytes()
    writer.close()
    del writer, reader
    # then none is held
    assert told == b'{"taken": 0, "refused": 1}'
    assert node.arena.stats()["items"] == 0
    client.drop()


def test_messages_do_not_import_pandas(tmp_path) -> None:
    # given a pandas that is installed, and takes long to import
    (tmp_path / "pandas.py").write_text("print('imported')")
    script = (
        "from coordl.peers import wire\n"
        "wire.reply_of([b'x' * 100, None], [1, 0])\n"
        "batch = wire.checked(wire.put_of([(1, 2, b'x' * 100)], [1]), wire.put_schema())\n"
        "assert batch.column('high').to_pylist() == [1] and wire.item_at(batch, 0)[1] == 1\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_wrong_token_is_refused_by_both_sides(make_node, monkeypatch) -> None:
    node = filled(make_node())
    client = PeerClient(node.address, node.name, Secrets(b"another token of some length"))
    with pytest.raises(Refused, match=r"does not have our token: COORDL_TOKEN"):
        client.hello()
    # Who does not care what the server proves is refused by it.
    monkeypatch.setattr(Secrets, "proves", lambda *said: True)
    with pytest.raises(Refused, match="refuses our token"):
        client.get(KEYS, 10)
    with pytest.raises(Refused, match="refuses our token"):
        client.put([(9, 9, b"nine")])
    with pytest.raises(Refused, match="refuses our token"):
        client.stats()
    assert node.arena.find(9, 9) is None
    client.drop()


def test_no_token_is_refused_but_on_loopback_where_that_is_said(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("COORDL_TOKEN")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    secrets = Secrets.from_environment()
    with pytest.raises(PeerError, match="coordl token"):
        secrets.check("127.0.0.1")
    monkeypatch.setenv("COORDL_PEERS_INSECURE", "1")
    secrets.check("127.0.0.1")
    secrets.check("::1")
    with pytest.raises(PeerError, match=r"10\.0\.0\.1"):
        secrets.check("10.0.0.1")


def test_a_token_file_others_may_read_is_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("COORDL_TOKEN")
    path = tmp_path / "token"
    monkeypatch.setenv("COORDL_TOKEN_FILE", str(path))
    with pytest.raises(PeerError, match="is not there"):
        Secrets.from_environment()
    path.write_text("0123456789abcdef\n")
    path.chmod(0o640)
    with pytest.raises(PeerError, match=f"chmod 600 {path}"):
        Secrets.from_environment()
    path.chmod(0o600)
    assert Secrets.from_environment().token == b"0123456789abcdef"
    path.write_text("short")
    with pytest.raises(PeerError, match="too few"):
        Secrets.from_environment()


def test_another_version_is_named(make_node, monkeypatch) -> None:
    node = filled(make_node())
    monkeypatch.setattr(wire, "VERSION", 2)
    client = client_of(node)
    with pytest.raises(Refused, match="speaks version 1, this is 2: install one version"):
        client.hello()


def test_another_data_sets_cache_is_named(make_node) -> None:
    node = make_node().start()
    client = PeerClient(node.address, "other", Secrets.from_environment())
    with pytest.raises(Refused, match="serves the cache 'data', not 'other'"):
        client.hello()


@pytest.mark.parametrize(
    ("ticket", "said"),
    [
        (b"", "no request of version"),
        (b"COORDLP\x02" + bytes(16), "no request of version"),
        (wire.MAGIC + bytes(15), "keys of 16 bytes"),
        (wire.MAGIC + bytes(16 * (wire.MOST_KEYS + 1)), "keys of 16 bytes"),
    ],
)
def test_requests_that_are_none_are_refused(make_node, ticket, said) -> None:
    client = client_of(filled(make_node()))
    client.hello()
    reader = None
    with pytest.raises((flight.FlightServerError, pa.ArrowException), match=said):
        reader = client._connected().do_get(flight.Ticket(ticket), client._options(1))
        reader.read_all()
    del reader
    client.drop()


def test_a_killed_server_is_noticed_by_its_connection(make_node) -> None:
    node = filled(make_node())
    client = client_of(node)
    client.hello()
    node.signal(signal.SIGKILL)
    with pytest.raises(OSError, match=node.address):
        client.get(KEYS, 10**12)  # a deadline far away
    # and a restarted one is spoken to again
    node.start()
    assert client.get(KEYS, 10).num_rows == 4
    client.drop()


def test_a_stopped_server_is_noticed_by_the_deadline(make_node, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "DEADLINE_S", 0.3)
    node = filled(make_node())
    client = client_of(node)
    client.hello()
    node.signal(signal.SIGSTOP)
    with pytest.raises(OSError, match=node.address):
        client.get(KEYS, 0)
    node.signal(signal.SIGCONT)
    client.drop()


def test_a_restarted_server_gets_a_new_proof(make_node) -> None:
    node = filled(make_node())
    client = client_of(node)
    client.hello()
    first = client.run
    node.signal(signal.SIGKILL)
    node.start()
    with pytest.raises((OSError, Refused)):  # the connection broke, or the proof is of the old run
        client.get(KEYS, 10)
    assert client.get(KEYS, 10).num_rows == 4
    assert client.run != first
    client.drop()


def test_a_forked_child_speaks_for_itself_and_nobody_hangs(make_node) -> None:
    client = client_of(filled(make_node()))
    client.hello()
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if client.get(KEYS, 10).num_rows == 4 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert client.get(KEYS, 10).num_rows == 4  # anew, as the fork closed it
    client.drop()


def test_a_fork_waits_until_the_last_connection_is_gone(make_node) -> None:
    # given a connection that no client of ours has any more, and that goes a little later
    node = filled(make_node())
    client_of(node).hello()
    connection = client_of(node)._opened()
    assert client_module._grpc_threads()
    gone = []

    def let_go() -> None:
        time.sleep(0.2)
        connection.close()
        gone.append(True)

    thread = threading.Thread(target=let_go)
    thread.start()
    # when this process forks, then gRPC has ended before
    child = os.fork()
    if child == 0:
        os._exit(0 if gone else 1)
    assert not client_module._grpc_threads()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_does_not_wait_for_an_attempt_to_connect_that_failed(monkeypatch) -> None:
    # given an address that answers nothing at all, as one whose link is cut
    monkeypatch.setattr(client_module, "DEADLINE_S", 0.3)
    wait_until(lambda: not client_module._grpc_threads())  # of tests before
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # more than it queues
            waits = stack.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(full.getsockname())
        secrets = Secrets.from_environment()
        client = PeerClient(f"127.0.0.1:{full.getsockname()[1]}", "data", secrets)
        with pytest.raises(OSError, match="Deadline Exceeded"):
            client.hello()
        # then gRPC's threads for it end, in less than the 20 s that it would try
        wait_until(lambda: not client_module._grpc_threads(), 5)


def test_threads_of_anothers_grpc_are_waited_for_once_and_new_ones_still(monkeypatch) -> None:
    monkeypatch.setattr(client_module, "_LET_GO_S", 0.2)
    there = {"1", "2", "3"}
    monkeypatch.setattr(client_module, "_grpc_threads", lambda: set(there))
    forks = client_module._Forks()
    for most in (1.0, 0.1):
        began = time.monotonic()
        forks.before()
        forks.after()
        assert time.monotonic() - began < most
    there.add("4")  # one of ours
    ending = threading.Timer(0.1, lambda: there.remove("4"))
    ending.start()
    forks.before()
    forks.after()
    assert there == {"1", "2", "3"}
    assert forks._not_ours == {"1", "2", "3"}


class _Liar(flight.FlightServerBase):
    """A server with our token that answers what it likes."""

    def __init__(self, answer: Callable[[int], pa.RecordBatch]) -> None:
        super().__init__("grpc+tcp://127.0.0.1:0")
        self.answer, self.secrets = answer, Secrets.from_environment()

    def do_action(self, context: Any, action: Any) -> list[bytes]:
        import json

        nonce = json.loads(action.body.to_pybytes())["nonce"]
        proof = self.secrets.proof("server", nonce, "run", "data", "1")
        told = {"version": 1, "run": "run", "arena": "data", "budget_bytes": 1, "proof": proof}
        return [json.dumps(told).encode()]

    def do_get(self, context: Any, ticket: Any) -> Any:
        batch = self.answer(len(wire.keys_of(ticket.ticket)))
        return flight.RecordBatchStream(pa.RecordBatchReader.from_batches(batch.schema, [batch]))


def _beyond(rows: int) -> pa.RecordBatch:
    """Views that lead beyond their buffer."""
    view = wire._VIEW.pack(1 << 20, b"abcd", 0, 0) * rows
    buffers = [None, pa.py_buffer(view), pa.py_buffer(b"abcd" * 10)]
    items = pa.Array.from_buffers(pa.binary_view(), rows, buffers)
    sums = pa.array([0] * rows, pa.uint64())
    return pa.RecordBatch.from_arrays([items, sums], schema=wire.reply_schema())


@pytest.mark.parametrize(
    "answer",
    [
        _beyond,
        lambda rows: wire.reply_of([b"x"] * (rows + 1), [0] * (rows + 1)),
        lambda rows: wire.reply_of([b"x"] * (rows - 1), [0] * (rows - 1)),
        lambda rows: pa.record_batch({"item": pa.array([b"x"] * rows)}),
    ],
    ids=["lengths", "too-many", "too-few", "columns"],
)
def test_answers_that_lie_about_their_shape_are_errors(answer) -> None:
    server = _Liar(answer)
    client = PeerClient(f"127.0.0.1:{server.port}", "data", Secrets.from_environment())
    with pytest.raises(wire.WireError):
        client.get(KEYS, 10)
    client.drop()
    server.shutdown()
