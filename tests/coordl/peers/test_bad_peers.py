"""Servers that are not what they should be: a clear word, the deadline at most, and storage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from emulated import Node, free_port, wait_until

import coordl
from coordl import transforms as T
from coordl.errors import PeerError
from coordl.fetch.cache import cache_name
from coordl.fetch.item import identify
from coordl.peers import asking as asking_module
from coordl.peers import client as client_module
from coordl.peers import exchange as exchange_module
from coordl.peers import node as own_node
from coordl.peers import wire
from coordl.peers.client import PeerClient, Refused
from coordl.peers.ownership import Shares
from coordl.peers.secret import Secrets

KEYS = np.array([[1, 2]], np.uint64)
SHARES = Shares(KEYS, np.array([100]))
ITEM = b"an item of some length"


def client_of(address: str, name: str = "data") -> PeerClient:
    return PeerClient(address, name, Secrets.from_environment())


def epoch_of(folder: Path, peers: Any = None, **options: Any) -> list[Any]:
    steps = T.Compose([T.RandomResizedCrop(32), T.ToTensor()])
    cache = None if peers is None else "64MiB"
    chosen = {"num_workers": 1, "prep": "native", **options}
    data = coordl.ImageFolder(str(folder), steps)
    loader = coordl.DataLoader(data, 4, seed=3, cache=cache, peers=peers, **chosen)
    return [tensor.tolist() for batch in loader for tensor in batch]


def goes_on_without(folder: Path, address: str, monkeypatch: Any, said: str) -> None:
    """A loader told of that server warns so, and gives what a lone one does."""
    own = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("COORDL_PEERS_SELF", own)
    with pytest.warns(UserWarning, match=said):
        ours = epoch_of(folder, [own, address])
    assert ours == epoch_of(folder)


# -- who is no server of ours --------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "DEADLINE_S", 0.5)
    monkeypatch.setattr(exchange_module, "SETTLE_S", 0.6)


@pytest.fixture
def silent() -> Iterator[str]:
    """Connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def web_server() -> Iterator[str]:
    """Who listens there speaks HTTP."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    port = server.stdout.readline().split(b"port ")[1].split()[0].decode()
    yield f"127.0.0.1:{port}"
    server.kill()
    server.wait()
    server.stdout.close()


@pytest.mark.parametrize("who", ["silent", "web_server"])
def test_a_port_of_something_else_is_no_server(folder, short, request, monkeypatch, who) -> None:
    address = request.getfixturevalue(who)
    client, began = client_of(address), time.monotonic()
    with pytest.raises(OSError, match=address):
        client.hello()
    assert time.monotonic() - began < 5
    goes_on_without(folder, address, monkeypatch, f"{address} does not answer yet")


def test_threads_that_wait_for_one_that_hangs_do_so_together(silent, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "DEADLINE_S", 0.5)
    client, failed = client_of(silent), []

    def ask() -> None:
        with pytest.raises(OSError, match=silent):
            client.get(KEYS, 0)
        failed.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(6)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # one greeting's deadline, not six
    assert len(failed) == 6 and max(failed) - began < 3 * 0.5


class _Speaks(flight.FlightServerBase):
    """A server with our token that says of itself, and of what it took, what it likes."""

    def __init__(self, taken: Any = 0, **about_itself: Any) -> None:
        super().__init__("grpc+tcp://127.0.0.1:0")
        self.taken, self.about_itself = taken, about_itself
        self.secrets = Secrets.from_environment()

    def do_action(self, context: Any, action: Any) -> list[bytes]:
        nonce = json.loads(action.body.to_pybytes())["nonce"]
        told = {"version": wire.VERSION, "run": "r", "arena": "data", "budget_bytes": 1}
        told |= self.about_itself
        words = (str(told[name]) for name in ("run", "arena", "budget_bytes"))
        return [json.dumps({**told, "proof": self.secrets.proof("server", nonce, *words)}).encode()]

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        list(reader)
        writer.write(pa.py_buffer(json.dumps({"taken": self.taken}).encode()))


@pytest.fixture
def speaks() -> Iterator[Callable[..., str]]:
    servers: list[_Speaks] = []

    def start(**options: Any) -> str:
        servers.append(_Speaks(**options))
        return f"127.0.0.1:{servers[-1].port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("budget", [-1, 1 << 63, 1e300, "much", None, True, [1]])
def test_a_budget_that_is_none_is_not_believed(speaks, budget) -> None:
    client = client_of(speaks(budget_bytes=budget))
    with pytest.raises(wire.WireError, match="may hold"):
        client.hello()


@pytest.mark.parametrize("taken", [-1, 3, 1e9, "all", None, True, [2]])
def test_a_count_that_is_none_is_not_believed(speaks, taken) -> None:
    client = client_of(speaks(taken=taken))
    with pytest.raises(wire.WireError, match="of 2 items"):
        client.put([(1, 1, ITEM), (1, 2, ITEM)])
    client.drop()


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"version": 2}, "is not asked .*speaks version 2, this is 1: install one version"),
        ({"version": None}, "is not asked .*speaks version None"),
        ({"arena": "other"}, "is not asked .*another data set"),
        ({"budget_bytes": "much"}, "does not answer yet .*may hold 'much' bytes"),
    ],
    ids=["version", "no-version", "data-set", "budget"],
)
def test_who_is_another_is_named_and_storage_serves(
    folder, short, speaks, monkeypatch, about, said
) -> None:
    address = speaks(**{"arena": cache_name(str(folder)), **about})
    goes_on_without(folder, address, monkeypatch, said)


# -- what starts and does not start ---------------------------------------------------------------


def test_a_server_killed_at_its_start_is_started_again(here, monkeypatch, tmp_path) -> None:
    # given one that kills itself the first two times
    script = tmp_path / "dies_twice.py"
    script.write_text(
        "import os, runpy, sys\n"
        "count = sys.argv.pop(1)\n"
        "with open(count, 'a') as file: file.write('x')\n"
        "if os.path.getsize(count) <= 2: os.kill(os.getpid(), 9)\n"
        "runpy.run_module('coordl.peers.server', run_name='__main__')\n"
    )
    monkeypatch.setattr(own_node, "_SERVER", (str(script), str(tmp_path / "starts")))
    arena = coordl._native.Arena.open("own", 1 << 20, 10)
    own_node.own_server("own", "127.0.0.1")
    assert (tmp_path / "starts").read_text() == "xxx"
    arena.close()
    wait_until(lambda: own_node.running("own") is None)


def test_a_server_killed_whenever_it_starts_is_an_error(here, monkeypatch) -> None:
    monkeypatch.setattr(own_node, "_SERVER", ("-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(PeerError, match="cannot be started: it ended with -9"):
        own_node.own_server("own", "127.0.0.1")


def test_what_fails_once_does_not_end_the_looks() -> None:
    """A server's port that is taken when it shall be started again may be free a second later."""
    looks: list[str] = []

    class Members:
        def settled(self) -> None:
            pass

        def look(self) -> bool:
            looks.append("look")
            return True

        def tell_own_server(self) -> None:
            looks.append("tell")

        def close(self) -> None:
            pass

    def revive() -> None:
        looks.append("revive")
        if looks.count("revive") < 3:
            raise PeerError("its port is taken")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exchange = exchange_module.Exchange(Members(), "127.0.0.1:1", revive)
        exchange.settle()
        wait_until(lambda: looks.count("look") >= 2)
        wait_until(lambda: looks.count("tell") >= 2)  # this node's server, of who is there
        exchange.close()
    assert sum("its port is taken" in str(each.message) for each in told) == 1


def test_a_first_look_that_takes_long_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(exchange_module, "SETTLE_S", 0.2)
    going_on = threading.Event()

    class Members:
        def settled(self) -> None:
            pass

        def look(self) -> bool:
            return going_on.wait(20)

        def tell_own_server(self) -> None:
            pass

        def close(self) -> None:
            pass

    exchange = exchange_module.Exchange(Members(), "127.0.0.1:1", lambda: None)
    began = time.monotonic()
    exchange.settle()
    assert time.monotonic() - began < 5
    going_on.set()
    exchange.close()


def test_an_address_that_may_not_be_spoken_to_is_an_error_at_once() -> None:
    class Members:
        def settled(self) -> None:
            pass

        def look(self) -> bool:
            raise PeerError("no token for it")

        def close(self) -> None:
            pass

    exchange = exchange_module.Exchange(Members(), "127.0.0.1:1", lambda: None)
    with pytest.raises(PeerError, match="no token for it"):
        exchange.settle()


# -- samples that Python makes --------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_python_is_given_wrong_contents_and_trains_on_none(
    folder, make_node, monkeypatch, photos, workers
) -> None:
    # given a server whose memory was written to: each item is another, or cut off, or longer
    items = identify(sorted(str(path) for path in folder.rglob("*.jpg")))
    node: Node = make_node(cache_name(str(folder)))
    for at, key in enumerate(items.keys.tolist()):
        right = Path(items.paths[at]).read_bytes()
        other = photos[(at + 1) % len(photos)].read_bytes()
        assert node.arena.admit(*key, (other, right[:-1], right + b"\0")[at % 3])
    node.start()
    own = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("COORDL_PEERS_SELF", own)
    options = {"prep": "python", "num_workers": workers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = epoch_of(folder, [own, node.address], **options)
    assert ours == epoch_of(folder, **options)


def test_python_does_not_wait_for_looks_at_who_hangs(silent, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "DEADLINE_S", 1.0)
    monkeypatch.setattr(asking_module, "_LOOK_S", 0.0)
    own = "127.0.0.1:1"
    asking = asking_module.Asking("data", own, [own, silent], 100, "original", SHARES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert asking.owner(KEYS[0]) is None  # the first look, with its deadline
        began = time.monotonic()
        for _ in range(5):
            assert asking.owner(KEYS[0]) is None
            assert len(_looking()) == 1  # they do not pile up
        assert time.monotonic() - began < 0.5
        wait_until(lambda: not _looking())


def test_python_asks_an_owner_that_is_lost_no_more(folder, make_node, monkeypatch) -> None:
    # given an owner that answers the first look, and hangs from then on
    items = identify(sorted(str(path) for path in folder.rglob("*.jpg")))
    node: Node = make_node(cache_name(str(folder))).start()
    monkeypatch.setattr(client_module, "DEADLINE_S", 0.5)
    monkeypatch.setattr(asking_module, "_LOOK_S", 1e9)  # it would connect
    own = "127.0.0.1:1"
    shares = Shares(items.keys, items.sizes)
    asking = asking_module.Asking(node.name, own, [own, node.address], 1, "indexed", shares)
    owner, key = next((to, key) for key in items.keys if (to := asking.owner(key)) is not None)
    node.signal(signal.SIGSTOP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert asking.get(owner, key, 100) is None
    # when what it did not give is read, and would be given to it in one form, then another
    asked = owner._attempts
    given = asking_module.OwnersCache(asking, owner)
    assert not given.takes(key, 100)
    assert not given.admit(key, b"indexed") and not given.admit(key, b"original")
    # then it is not waited for again
    assert owner._attempts == asked
    asking._members.close()


def test_python_gives_in_the_other_form_what_did_not_fit_in_the_first(make_node) -> None:
    # given an owner with room for the smaller form alone
    node: Node = make_node("data", budget=5_000).start()
    own = "127.0.0.1:1"
    asking = asking_module.Asking("data", own, [own, node.address], 1, "indexed", SHARES)
    owner = asking.owner(KEYS[0])
    given = asking_module.OwnersCache(asking, owner)
    assert given.takes(KEYS[0], 4_000)
    assert not given.admit(KEYS[0], bytes(6_000))
    assert given.admit(KEYS[0], bytes(4_000))
    assert not given.takes(KEYS[0], 4_000)  # of another item
    asking._members.close()


def test_what_was_lost_before_is_not_told_by_each_worker(make_node) -> None:
    node, own = make_node().start(), "127.0.0.1:1"
    absent = f"127.0.0.1:{free_port()}"
    asking = asking_module.Asking("data", own, [own, absent, node.address], 100, "original", SHARES)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        members = asking._membership()
        members.look()
        assert members.live().names == (own, node.address)
        assert told == []
        # what is lost later is
        members.lost(client := members.live().clients[1], OSError("killed"), client.run)
        assert len(told) == 1 and "is lost" in str(told[0].message)
    members.close()


def _looking() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "coordl-look"]


# -- addresses of two families --------------------------------------------------------------------


def test_servers_of_two_families_speak_to_each_other(folder, make_node, monkeypatch) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 loopback here")
    # given our own server at an address of IPv6, and the other at one of IPv4
    own = f"[::1]:{free_port()}"
    monkeypatch.setenv("COORDL_PEERS_SELF", own)
    node = make_node(cache_name(str(folder))).start()
    ours = epoch_of(folder, [own, node.address])
    assert ours == epoch_of(folder)
    assert node.arena.stats()["items"] > 0


# -- clocks ---------------------------------------------------------------------------------------

_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long off(void) { return atol(getenv("CLOCK_OFF_S")); }
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += off();
  return result;
}
int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
"""
DAY_S = 86_400


@pytest.fixture(params=[-400 * DAY_S, 400 * DAY_S], ids=["behind", "ahead"])
def skewed(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose clock is more than a year off."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to make another clock with")
    (tmp_path / "clock.c").write_text(_CLOCK)
    command = ["cc", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = {"LD_PRELOAD": str(tmp_path / "clock.so"), "CLOCK_OFF_S": str(request.param)}
    show = [sys.executable, "-c", "import time; print(time.time())"]
    shown = subprocess.run(show, env={**os.environ, **found}, capture_output=True, check=True)
    assert abs(float(shown.stdout) - time.time() - request.param) < 60
    return found


def test_a_server_whose_clock_is_wrong_serves_and_is_missed_in_time(
    make_node, skewed, monkeypatch
) -> None:
    node = make_node()
    node.environment = skewed
    node.arena.admit(1, 2, ITEM)
    node.start()
    client = client_of(node.address)
    assert bytes(wire.item_at(client.get(KEYS, 10), 0)[0]) == ITEM
    assert client.put([(7, 7, ITEM)]) == 1
    # when it hangs, it is the asking side's deadline that counts
    monkeypatch.setattr(client_module, "DEADLINE_S", 0.5)
    node.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(OSError, match=node.address):
        client.get(KEYS, 0)
    assert 0.4 < time.monotonic() - began < 5
    node.signal(signal.SIGCONT)
    client.drop()


def test_certificates_are_read_by_each_sides_clock(
    folder, make_node, certificates, skewed, short, monkeypatch
) -> None:
    with_tls(monkeypatch, certificates)
    node = make_node(cache_name(str(folder)))
    node.environment = skewed  # where our certificate, of two days, is not valid
    node.start()
    said = f"{node.address}.*valid by both clocks"
    with pytest.raises(OSError, match=said):
        client_of(node.address, node.name).hello()
    goes_on_without(folder, node.address, monkeypatch, said)


# -- TLS ------------------------------------------------------------------------------------------


def with_tls(monkeypatch: Any, certificates: Path) -> None:
    for name, file in (("CERT", "node.pem"), ("KEY", "node.key"), ("CA", "ca.pem")):
        monkeypatch.setenv(f"COORDL_TLS_{name}", str(certificates / file))
    (certificates / "node.key").chmod(0o600)


def test_tls_to_a_server_without_it_is_no_server(
    folder, make_node, certificates, short, monkeypatch
) -> None:
    node = make_node(cache_name(str(folder))).start()
    with_tls(monkeypatch, certificates)
    said = f"{node.address}.*does it speak TLS"
    with pytest.raises(OSError, match=said):
        client_of(node.address, node.name).hello()
    goes_on_without(folder, node.address, monkeypatch, said)


def test_plain_text_to_a_server_with_tls_is_no_server(
    folder, make_node, certificates, short, monkeypatch
) -> None:
    with monkeypatch.context() as there:
        with_tls(there, certificates)
        node = make_node(cache_name(str(folder))).start()
    said = f"{node.address}.*does it expect TLS"
    with pytest.raises(OSError, match=said):
        client_of(node.address, node.name).hello()
    goes_on_without(folder, node.address, monkeypatch, said)


def test_a_certificate_of_another_address_is_refused(make_node, certificates, monkeypatch) -> None:
    with_tls(monkeypatch, certificates)  # of 127.0.0.1
    node = make_node().start()
    client_of(node.address).hello()
    with pytest.raises(OSError, match=r"localhost.* is its one for this address"):
        client_of(f"localhost:{node.port}").hello()


def test_a_refused_token_is_not_tried_with_another_servers_run(make_node) -> None:
    node = make_node().start()
    client = PeerClient(node.address, "data", Secrets(b"another token of some length"))
    for _ in range(2):
        with pytest.raises(Refused, match="does not have our token"):
            client.get(KEYS, 10)
