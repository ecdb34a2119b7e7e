"""Who is there: told once, found again, and never dependent on the store."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
from emulated import free_port, wait_until

from coordl.peers.address import own_address, split
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
        members.lost(client, OSError("gone"))
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
    members.distrust(members.live().clients[1], "it lied")
    assert not members.look()
    assert members.live().names == (OWN,)
    node.signal(signal.SIGKILL)
    node.start()
    wait_until(members.look)
    assert members.live().names == (OWN, node.address)
    members.close()


_STORE = """
import sys, time, torch.distributed as dist
from datetime import timedelta
store = dist.TCPStore("127.0.0.1", int(sys.argv[1]), is_master=True, wait_for_workers=False)
print("up", flush=True)
time.sleep(600)
"""


def test_addresses_come_through_the_store_and_outlive_it(make_node) -> None:
    # given a store in a process of its own, where two ranks of three have published
    port = free_port()
    keeper = subprocess.Popen([sys.executable, "-c", _STORE, str(port)], stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"up\n"
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=10))
    node, said = make_node().start(), []
    ranks = [Published(store, "data", rank, 3) for rank in range(3)]
    ranks[0].publish(OWN)
    members = membership_of(ranks[0], said)
    assert not members.look()  # others are expected
    ranks[2].publish(node.address)
    assert not members.look()
    assert members.live().names == (OWN, node.address)
    ranks[1].publish(OWN)
    assert members.look()
    # another data set's servers are others
    assert Published(store, "other", 0, 3).addresses() == set()
    # when the store is lost, those known serve on, and one sentence says so
    keeper.kill()
    keeper.wait()
    keeper.stdout.close()
    members.look()
    members.look()
    assert len(said) == 1 and "store cannot be asked" in said[0]
    assert members.live().names == (OWN, node.address)
    members.lost(members.live().clients[1], OSError("gone"))
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
