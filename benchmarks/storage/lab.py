"""Servers on one machine: network namespaces joined by a bridge, each with a link of its own rate,
and each with a copy of the data set where all see it: else its pages would serve every server.

Needs root and iproute2. The rate is that of each direction of each link (token buckets at both
ends); there is no delay, as the kernels at hand lack netem.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

_NEW_NET, _NEW_MOUNTS = 0x40000000, 0x00020000  # sched.h: CLONE_NEWNET, CLONE_NEWNS
_BIND, _PRIVATE = 0x1000, 0x4000 | 0x40000  # mount.h: MS_BIND; MS_REC | MS_PRIVATE
_SWITCH = "coordl-sw"


class LabError(Exception):
    """Namespaces cannot be had here; says why."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def name(server: int) -> str:
    return f"coordl-{server}"


def address(server: int) -> str:
    return f"10.78.0.{server + 1}"


@contextlib.contextmanager
def servers(count: int, rate: str) -> Iterator[None]:
    """`count` of them, with links of `rate` (as tc has it, "1gbit"), until the end of the block."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root")
    try:
        _up(count, rate)
        yield
    finally:
        for each in (*map(name, range(count)), _SWITCH):
            subprocess.run(["ip", "netns", "del", each], capture_output=True)


def _up(count: int, rate: str) -> None:
    _run("ip", "netns", "add", _SWITCH)
    _run("ip", "-n", _SWITCH, "link", "add", "br0", "type", "bridge")
    _run("ip", "-n", _SWITCH, "link", "set", "br0", "up")
    for server in range(count):
        own, port = name(server), f"p{server}"
        _run("ip", "netns", "add", own)
        link = ["ip", "link", "add", "eth0", "netns", own, "type", "veth", "peer", "name"]
        _run(*link, port, "netns", _SWITCH)
        _run("ip", "-n", _SWITCH, "link", "set", port, "master", "br0", "up")
        _run("ip", "-n", own, "addr", "add", f"{address(server)}/24", "dev", "eth0")
        _run("ip", "-n", own, "link", "set", "eth0", "up")
        _run("ip", "-n", own, "link", "set", "lo", "up")
        shape = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
        for where, device in ((own, "eth0"), (_SWITCH, port)):
            qdisc = ["tc", "qdisc", "replace", "dev", device, *shape]
            _run("ip", "netns", "exec", where, *qdisc)


def enter(server: int, copy: Path, folder: Path) -> Callable[[], None]:
    """What puts the calling process there, between fork and exec; it sees `copy` at `folder`."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = f"/run/netns/{name(server)}"
    source, target = os.fsencode(copy), os.fsencode(folder)

    def check(result: int, what: str) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), what)

    def join() -> None:
        found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        check(libc.setns(found, _NEW_NET), "setns")
        os.close(found)
        check(libc.unshare(_NEW_MOUNTS), "unshare")
        check(libc.mount(None, b"/", None, ctypes.c_ulong(_PRIVATE), None), "mount")
        check(libc.mount(source, target, None, ctypes.c_ulong(_BIND), None), "mount")

    return join


def received_bytes(server: int) -> int:
    """Over its link so far, with what the protocols add."""
    command = ["ip", "netns", "exec", name(server), "cat", "/proc/net/dev"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("eth0:"))


def memory(server: int) -> Path:
    """Where that server's arenas are."""
    return Path(f"/dev/shm/coordl-benchmark-{os.getpid()}") / str(server)
