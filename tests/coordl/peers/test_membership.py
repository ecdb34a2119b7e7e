"""Who is there: told once, found again, and never dependent on the store."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
from emulated import free_port, wait_until

from coordl.errors import PeerError
from coordl.peers import client as client_module
from coordl.peers import membership as membership_module
from coordl.peers.address import cluster_host, own_address, split
from coordl.peers.membership import Listed, Membership, Published
from coordl.peers.secret import Secrets

OWN = "127.0.0.1:1"


def membership_of(source: Any, said: list[str]) -> Membership:
    return Membership(source, OWN, 100, "data", Secrets.from_environment(), said.append)


def test_a_member_is_lost_once_and_told_once(make_node) -> None:
    node, said = make_node().start(), []
    members = membership_of(Listed([OWN, node.address]), said)
    assert members.look()
    assert members.live().names == (OWN, node.address)
    assert members.live().weights == (100.0, float(64 << 20))
    client = members.live().clients[1]
    for _ in range(3):
        members.lost(client, OSError("gone"), client.run)
    assert members.live().names == (OWN,)
    assert (members.failures, len(said)) == (1, 1)
    assert "is lost" in said[0] and "gone" in said[0]
    # it answers again: told once more
    assert members.look() and members.look()
    assert members.live().names == (OWN, node.address)
    assert len(said) == 2 and "is there" in said[1]
    members.close()


def test_a_distrusted_member_is_not_asked_until_it_is_started_anew(make_node) -> None:
    node, said = make_node().start(), []
    members = membership_of(Listed([OWN, node.address]), said)
    members.look()
    client = members.live().clients[1]
    members.distrust(client, "it lied", run := client.run)
    assert not members.look()
    assert members.live().names == (OWN,)
    node.signal(signal.SIGKILL)
    node.start()
    wait_until(members.look)
    assert members.live().names == (OWN, node.address)
    # and what is said late of the one before it is not held against it
    members.distrust(client, "it lied", run)
    members.lost(client, OSError("killed"), run)
    assert members.live().names == (OWN, node.address)
    assert client.run != run and members.failures == 1
    members.lost(client, OSError("killed"), client.run)
    assert members.look()  # distrusted is the other
    members.close()


def test_who_starts_later_is_told_of_only_when_settling_has_passed() -> None:
    absent, said = f"127.0.0.1:{free_port()}", []
    secrets, listed = Secrets.from_environment(), Listed([OWN, absent])
    members = Membership(listed, OWN, 100, "data", secrets, said.append, patient=True)
    members.look()
    assert said == []
    members.settled()
    members.look()
    members.look()
    members.close()
    assert said == [f"peers: {absent} does not answer yet (connection refused)"]


def test_a_server_of_the_job_before_is_not_told_of_while_settling(make_node) -> None:
    node, said = make_node(), []
    node.environment = {"COORDL_TOKEN": "the token of the job before"}
    node.start()
    secrets, listed = Secrets.from_environment(), Listed([OWN, node.address])
    members = Membership(listed, OWN, 100, "data", secrets, said.append, patient=True)
    members.look()
    node.signal(signal.SIGKILL)
    node.environment = {}
    node.start()
    wait_until(members.look)
    members.settled()
    members.close()
    assert said == []


def test_our_own_server_that_refuses_us_is_told_once(make_node) -> None:
    node, said = make_node().start(), []
    members = Membership(
        Listed([]), node.address, 1, "data", Secrets(b"another token"), said.append
    )
    members.tell_own_server()
    members.tell_own_server()
    members.close()
    assert len(said) == 1
    assert f"{node.address} is this node's own server and not ours" in said[0]
    assert "does not have our token" in said[0]


_STORE = """
import sys, time, torch.distributed as dist
from datetime import timedelta
store = dist.TCPStore("127.0.0.1", int(sys.argv[1]), is_master=True, wait_for_workers=False)
print("up", flush=True)
time.sleep(600)
"""


@contextmanager
def store_elsewhere() -> Iterator[tuple[subprocess.Popen, Any]]:
    """A store in a process of its own, and a connection to it."""
    port = free_port()
    keeper = subprocess.Popen([sys.executable, "-c", _STORE, str(port)], stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"up\n"
    try:
        yield (
            keeper,
            dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=10)),
        )
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdout.close()


def test_a_store_that_hangs_holds_nobody_up(make_node, monkeypatch) -> None:
    monkeypatch.setattr(membership_module, "STORE_S", 0.3)
    node, said = make_node().start(), []
    with store_elsewhere() as (keeper, store):
        source = Published(store, "data", 0, 2)
        source.publish(OWN)
        other = Published(store, "data", 1, 2)
        other.publish(node.address)
        other.addresses()
        members = membership_of(source, said)
        assert members.look()
        # when the store's host hangs, and another server is lost meanwhile
        keeper.send_signal(signal.SIGSTOP)
        members.lost(client := members.live().clients[1], OSError("gone"), client.run)
        began = time.monotonic()
        for _ in range(2):
            members.look()
        # then looks end, and find it again
        assert time.monotonic() - began < 5
        assert members.live().names == (OWN, node.address)
        assert sum("store cannot be asked (no answer within" in each for each in said) == 1
        # one who comes now is alone, and does not wait either
        late = Published(store, "data", 1, 2)
        late.publish(node.address)
        with pytest.raises(TimeoutError):
            late.addresses()
        # and is known when the store goes on
        keeper.send_signal(signal.SIGCONT)
        wait_until(lambda: answers(late) == {OWN, node.address})
        members.close()


def answers(source: Published) -> set[str]:
    try:
        return source.addresses()
    except TimeoutError:
        return set()


def test_those_that_hang_are_waited_for_together(monkeypatch) -> None:
    monkeypatch.setattr(client_module, "DEADLINE_S", 0.5)
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in silent]
    members = membership_of(Listed([OWN, *addresses]), said := [])
    began = time.monotonic()
    assert not members.look()
    assert time.monotonic() - began < 0.5 * len(silent)
    assert len(said) == len(silent)
    members.close()
    for each in silent:
        each.close()


def test_addresses_come_through_the_store_and_outlive_it(make_node) -> None:
    # given a store in a process of its own, where two ranks of three have published
    stack = ExitStack()
    _, store = stack.enter_context(store_elsewhere())
    node, said = make_node().start(), []
    ranks = [Published(store, "data", rank, 3) for rank in range(3)]
    ranks[0].publish(OWN)
    members = membership_of(ranks[0], said)
    assert not members.look()  # others are expected
    ranks[2].publish(node.address)
    ranks[2].addresses()
    assert not members.look()
    assert members.live().names == (OWN, node.address)
    ranks[1].publish(OWN)
    ranks[1].addresses()
    assert members.look()
    # another data set's servers are others
    assert Published(store, "other", 0, 3).addresses() == set()
    # when the store is lost, those known serve on, and one sentence says so
    stack.close()
    members.look()
    members.look()
    assert len(said) == 1 and "store cannot be asked" in said[0]
    assert members.live().names == (OWN, node.address)
    members.lost(client := members.live().clients[1], OSError("gone"), client.run)
    members.look()
    assert members.live().names == (OWN, node.address)  # found again without it
    members.close()


def test_addresses_are_host_and_port() -> None:
    assert split("node7:80") == ("node7", 80)
    assert split("[fe80::1]:80") == ("fe80::1", 80)
    for wrong in ("node7", ":80", "node7:", "fe80::1:80", "a:0", "a:65536", "a:-1", "a:8a"):
        with pytest.raises(ValueError, match=r"port"):
            split(wrong)


def test_our_own_address_is_found_or_said(monkeypatch) -> None:
    assert own_address(["127.0.0.1:5000", "203.0.113.7:5000"]) == "127.0.0.1:5000"
    monkeypatch.setenv("COORDL_PEERS_SELF", "203.0.113.7:5000")
    assert own_address(["127.0.0.1:5000", "203.0.113.7:5000"]) == "203.0.113.7:5000"


def test_the_way_to_the_master_is_of_whichever_family_there_is(monkeypatch) -> None:
    # given a name with an address of a family that has no way, before one that has
    ways = [
        (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::1%none", 9, 0, 0)),
        (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 9)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: ways)
    monkeypatch.delenv("COORDL_PEERS_HOST", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "head")
    assert cluster_host() == "127.0.0.1"
    del ways[1:]
    with pytest.raises(PeerError, match="no way to MASTER_ADDR=head"):
        cluster_host()


def test_two_of_the_list_that_are_ours_are_an_error_that_says_how(monkeypatch) -> None:
    with pytest.raises(PeerError, match=r"2 of peers=.* belong .*COORDL_PEERS_SELF=host:port"):
        own_address(["127.0.0.1:5000", "[::1]:5000"])
    monkeypatch.setenv("COORDL_PEERS_SELF", "[::1]:5000")
    assert own_address(["127.0.0.1:5000", "[::1]:5000"]) == "[::1]:5000"
