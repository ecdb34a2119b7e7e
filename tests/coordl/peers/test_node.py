"""A node's own server: one for each arena, found again, ended with its users; and TLS."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from emulated import free_port, wait_until

from coordl import _native
from coordl.errors import PeerError
from coordl.peers import node
from coordl.peers.address import record_path
from coordl.peers.client import PeerClient
from coordl.peers.node import hold, own_server, running
from coordl.peers.secret import Secrets, Tls

KEYS = np.array([[1, 2]], np.uint64)


@pytest.fixture
def arena(here: Path) -> Iterator[_native.Arena]:
    arena = _native.Arena.open("own", 4 << 20, 100)
    arena.admit(1, 2, b"an item of some length")
    yield arena
    arena.close()


def ask(address: str) -> int:
    client = PeerClient(address, "own", Secrets.from_environment())
    held = client.get(KEYS, 10).num_rows
    client.drop()
    return held


def test_there_is_one_server_for_an_arena_and_all_find_it(arena) -> None:
    address = own_server("own", "127.0.0.1")
    assert own_server("own", "127.0.0.1") == address
    record = record_path("own")
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert ask(address) == 1
    told = running("own")
    assert told is not None
    # it is of a session of its own: what ends this process's group leaves it alone
    assert os.getsid(told["pid"]) == told["pid"] != os.getsid(0)
    # and ends when the arena's last user does
    arena.close()
    wait_until(lambda: not record.exists())


def test_a_killed_server_is_replaced(arena) -> None:
    own_server("own", "127.0.0.1")
    told = running("own")
    assert told is not None
    os.kill(told["pid"], signal.SIGKILL)
    wait_until(lambda: running("own") is None)
    address = own_server("own", "127.0.0.1")
    again = running("own")
    assert again is not None and again["run"] != told["run"]
    assert ask(address) == 1


def test_a_port_of_another_data_sets_server_is_named_as_that(arena) -> None:
    other = _native.Arena.open("other", 1 << 20, 10)
    port = int(own_server("other", "127.0.0.1").rpartition(":")[2])
    with pytest.raises(PeerError) as raised:
        own_server("own", "127.0.0.1", port)
    other.close()
    assert str(raised.value) == (
        f"this node's server for peers= cannot be started: cannot listen at 127.0.0.1:{port}: "
        "Address already in use, by this node's server of another data set: give each data set a "
        "list with ports of its own"
    )


@pytest.mark.parametrize("changed", ["host", "port", "token"])
def test_a_server_of_other_settings_is_replaced_unless_a_job_uses_it(
    arena, changed, monkeypatch
) -> None:
    # given a server, and a process that wants another
    first, port = own_server("own", "127.0.0.1"), 0
    host = "127.0.0.2" if changed == "host" else "127.0.0.1"
    if changed == "port":
        port = free_port()
    if changed == "token":
        monkeypatch.setenv("COORDL_TOKEN", "f" * 32)
    monkeypatch.setattr(node, "_ENDS_S", 0.2)
    # while a loader uses it, the other is refused, and says why
    held = hold("own")
    assert held is not None
    why = {"host": "not at 127.0.0.2", "port": f"not at 127.0.0.1:{port}", "token": "another token"}
    with pytest.raises(PeerError, match=f"runs at {first} for another job, .*{why[changed]}"):
        own_server("own", host, port)
    # when none does any more, it is replaced, by one that can be asked
    monkeypatch.setattr(node, "_ENDS_S", 60)
    ending = threading.Timer(0.5, os.close, (held,))
    ending.start()
    address = own_server("own", host, port)
    ending.join()
    assert address != first
    assert ask(address) == 1
    assert own_server("own", host) == address


def test_what_tells_settings_apart_tells_no_secret(arena) -> None:
    own_server("own", "127.0.0.1")
    told = running("own")
    assert told is not None
    secrets = Secrets.from_environment()
    assert secrets.token.decode() not in record_path("own").read_text()
    assert told["settings"] == secrets.fingerprint(told["run"], 1)
    assert secrets.fingerprint("x", 1) != secrets.fingerprint("x", 2)
    tls = Secrets(secrets.token, Tls(b"a", b"b", b"c"))
    assert tls.fingerprint("x", 1) != secrets.fingerprint("x", 1) != tls.fingerprint("y", 1)


def test_a_server_that_cannot_start_says_why(arena) -> None:
    with pytest.raises(PeerError, match=r"cannot listen at 203\.0\.113\.1:"):
        own_server("own", "203.0.113.1", free_port())
    assert not record_path("own").exists()


def test_a_user_that_is_killed_does_not_keep_the_server(here, in_child) -> None:
    # given a process that has an arena and its server, and is killed
    child = in_child(
        "import time; from coordl import _native; from coordl.peers.node import own_server;"
        "a = _native.Arena.open('own', 1 << 20, 10); own_server('own', '127.0.0.1');"
        "print('up', flush=True); time.sleep(600)"
    )
    told = running("own")
    assert told is not None
    child.kill()
    child.wait()
    wait_until(lambda: not psutil.pid_exists(told["pid"]))
    assert not record_path("own").exists()


@pytest.fixture
def in_child() -> Iterator[object]:
    import sys

    started: list[subprocess.Popen] = []

    def start(source: str) -> subprocess.Popen:
        child = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_tls_lets_in_who_has_a_certificate_and_nobody_else(make_node, certificates, monkeypatch):
    # given a server that speaks TLS
    plain = Secrets.from_environment()
    for name, file in (("CERT", "node.pem"), ("KEY", "node.key"), ("CA", "ca.pem")):
        monkeypatch.setenv(f"COORDL_TLS_{name}", str(certificates / file))
    (certificates / "node.key").chmod(0o600)
    node = make_node().start()
    node.arena.admit(1, 2, b"an item of some length")
    # then who has a certificate of the authority gets items
    client = PeerClient(node.address, "data", Secrets.from_environment())
    assert client.get(KEYS, 10).column("item").null_count == 0
    client.drop()
    # and plain text is refused
    client = PeerClient(node.address, "data", plain)
    with pytest.raises(OSError, match=node.address):
        client.hello()
    # and a client without one of that authority is
    other = certificates / "other"
    other.mkdir()
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    make += " -keyout k -out c -days 2 -subj /CN=x"
    subprocess.run(make.split(), cwd=other, check=True, capture_output=True)
    monkeypatch.setenv("COORDL_TLS_CERT", str(other / "c"))
    monkeypatch.setenv("COORDL_TLS_KEY", str(other / "k"))
    (other / "k").chmod(0o600)
    client = PeerClient(node.address, "data", Secrets.from_environment())
    with pytest.raises(OSError, match=node.address):
        client.hello()


def test_half_of_tls_and_a_key_others_may_read_are_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("COORDL_TLS_CERT", str(tmp_path / "c"))
    with pytest.raises(PeerError, match="set COORDL_TLS_KEY, COORDL_TLS_CA as well"):
        Secrets.from_environment()
    for name in ("c", "k", "a"):
        (tmp_path / name).write_text("x")
    (tmp_path / "k").chmod(0o644)
    monkeypatch.setenv("COORDL_TLS_KEY", str(tmp_path / "k"))
    monkeypatch.setenv("COORDL_TLS_CA", str(tmp_path / "a"))
    with pytest.raises(PeerError, match="chmod 600"):
        Secrets.from_environment()
