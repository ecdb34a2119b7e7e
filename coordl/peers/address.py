"""Where servers are: their addresses, which of them is ours, and where ours says its own."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import psutil

from coordl import _native
from coordl.errors import PeerError


def record_path(name: str) -> Path:
    """Where the server of that arena says its address; locked as long as it lives."""
    return Path(_native.arena_directory()) / f"coordl-peers.{os.geteuid()}.{name}"


def shared_arenas() -> list[str]:
    """Names of this user's arenas that have, or had, a server on this node."""
    start = record_path("").name
    there = os.listdir(_native.arena_directory())
    return sorted(each.removeprefix(start) for each in there if each.startswith(start))


def reap_records() -> None:
    """Removes what servers that were killed said of themselves."""
    for name in shared_arenas():
        path = record_path(name)
        try:
            record = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)  # who is about to lock it looks whether it still is there
        except BlockingIOError:  # its server lives
            pass
        finally:
            os.close(record)


def split(address: str) -> tuple[str, int]:
    """("host", port) of "host:port" or "[host]:port". Raises ValueError."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or (":" in bare and bare == host) or not port.isdecimal():
        raise ValueError(f"peers= names servers as 'host:port' or '[IPv6]:port', got {address!r}")
    if not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address!r}: a port is between 1 and 65535")
    return bare, int(port)


def own_address(addresses: Sequence[str]) -> str:
    """Which of these is this machine's: COORDL_PEERS_SELF, else the one with an address of it.

    Raises:
        PeerError: none or several are.
    """
    said = os.environ.get("COORDL_PEERS_SELF")
    if said is not None:
        if said not in addresses:
            raise PeerError(f"COORDL_PEERS_SELF={said} is none of peers={list(addresses)}")
        return said
    here = {a.address.partition("%")[0] for each in psutil.net_if_addrs().values() for a in each}
    found = [address for address in addresses if resolved(split(address)[0]) & here]
    if len(found) != 1:
        raise PeerError(
            f"{len(found) or 'none'} of peers={list(addresses)} belong to this machine, and one "
            "has to: correct the list, or say which by COORDL_PEERS_SELF=host:port"
        )
    return found[0]


def resolved(host: str) -> set[str]:
    """Its addresses; empty where it has none."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def cluster_host() -> str:
    """The address at which other servers reach this one: COORDL_PEERS_HOST, else that of the
    interface on the way to MASTER_ADDR."""
    said = os.environ.get("COORDL_PEERS_HOST")
    if said:
        return said
    master = os.environ.get("MASTER_ADDR", "127.0.0.1")
    why: OSError | None = None
    try:
        found = socket.getaddrinfo(master, 9, type=socket.SOCK_DGRAM)
    except OSError as error:
        found, why = [], error
    for family, _, _, _, address in found:  # a name may have an address of a family we have not
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)  # sends nothing: only asks for the way
                return str(probe.getsockname()[0])
        except OSError as error:
            why = why or error
    raise PeerError(
        f"no way to MASTER_ADDR={master} ({why}): name this server's address on the cluster's "
        "network by COORDL_PEERS_HOST"
    ) from why
