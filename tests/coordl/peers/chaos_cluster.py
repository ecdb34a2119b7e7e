"""Emulated servers of one machine, each with a torchrun agent, and what can be done to them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from emulated import free_port

_STORE = """
import sys, time, torch.distributed as dist
store = dist.TCPStore(sys.argv[1], int(sys.argv[2]), is_master=True, wait_for_workers=False)
print("up", flush=True)
time.sleep(1 << 20)
"""
# Of torchrun: who was killed is missed after 4 s, and who comes is waited for 2 s: fewer, and some
# begin without the others, for which they are waited for in vain.
_RENDEZVOUS = "is_host=0,last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=4"


class Loopback:
    """All servers at one address, as far as they differ by port alone."""

    def host(self, number: int) -> str:
        return "127.0.0.1"

    store_host = "127.0.0.1"

    def enter(self, number: int | None) -> list[str]:
        return []


class Spaces:
    """Each server in a network namespace of its own, joined by a switch; a link can be cut."""

    SWITCH = "coordl-chaos-sw"
    store_host = "10.79.0.254"

    def name(self, number: int) -> str:
        return f"coordl-chaos-{number}"

    def host(self, number: int) -> str:
        return f"10.79.0.{number + 1}"

    def enter(self, number: int | None) -> list[str]:
        where = self.SWITCH if number is None else self.name(number)
        return ["ip", "netns", "exec", where]

    def link(self, number: int, up: bool) -> None:
        _ip("-n", self.SWITCH, "link", "set", f"p{number}", "up" if up else "down")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def spaces(count: int) -> Iterator[Spaces]:
    """So many servers. Raises OSError or CalledProcessError where namespaces cannot be had."""
    made = Spaces()
    if os.geteuid() != 0:
        raise PermissionError("network namespaces need root")
    try:
        _ip("netns", "add", made.SWITCH)
        _ip("-n", made.SWITCH, "link", "add", "br0", "type", "bridge")
        _ip("-n", made.SWITCH, "addr", "add", f"{made.store_host}/24", "dev", "br0")
        for device in ("br0", "lo"):
            _ip("-n", made.SWITCH, "link", "set", device, "up")
        for number in range(count):
            own, port = made.name(number), f"p{number}"
            _ip("netns", "add", own)
            veth = ["link", "add", "eth0", "netns", own, "type", "veth", "peer", "name", port]
            _ip(*veth, "netns", made.SWITCH)
            _ip("-n", made.SWITCH, "link", "set", port, "master", "br0", "up")
            _ip("-n", own, "addr", "add", f"{made.host(number)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", own, "link", "set", device, "up")
        yield made
    finally:
        for name in (*map(made.name, range(count)), made.SWITCH):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@dataclass
class Server:
    """One of them.

    Attributes:
        agent: its torchrun; None while it is away.
    """

    number: int
    directory: Path
    linger_s: float
    agent: subprocess.Popen | None = None
    said: list[Path] = field(default_factory=list)

    def ranks(self) -> list[psutil.Process]:
        """The training processes, without their workers."""
        if self.agent is None:
            return []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.agent.pid).children()
            return [each for each in children if _runs(each, "chaos_rank.py")]
        return []

    def serving(self) -> int | None:
        """The process that serves its cache."""
        for record in self.directory.glob("coordl-peers*"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                pid = int(json.loads(record.read_text())["pid"])
                if _runs(psutil.Process(pid), "chaos_server.py"):
                    return pid
        return None


def _runs(process: psutil.Process, script: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(part.endswith(script) for part in process.cmdline())
    return False


class Cluster:
    """Servers, and the store at which their torchruns meet."""

    def __init__(self, home: Path, folder: Path, memory: Path, count: int, net: Loopback | Spaces):
        self.home, self.folder, self.net, self.count = home, folder, net, count
        self.token = secrets.token_hex(16)
        self.seed = "1"
        (home / "orders").mkdir()
        self.servers = []
        for number in range(count):
            (memory / f"server{number}").mkdir()
            linger_s = (0.0, 10.0)[number % 2]  # a restarted rank finds its cache gone, or full
            self.servers.append(Server(number, memory / f"server{number}", linger_s))
        self.rounds = 0
        self._store: subprocess.Popen | None = None
        self.meet()

    def meet(self) -> None:
        """Another store: what met at the one before has ended."""
        if self._store is not None:
            self._store.kill()
            self._store.wait()
            assert self._store.stdout is not None
            self._store.stdout.close()
        self.rounds += 1
        self.port = free_port()
        command = [*self.net.enter(None), sys.executable, "-c", _STORE]
        self._store = subprocess.Popen(
            [*command, self.net.store_host, str(self.port)],
            stdout=subprocess.PIPE,
            env=self.environment(None),
        )
        assert self._store.stdout is not None
        assert self._store.stdout.readline() == b"up\n"

    def environment(self, server: Server | None) -> dict[str, str]:
        found = {**os.environ, "COORDL_TOKEN": self.token, "PYTHONWARNINGS": "ignore"}
        found["OMP_NUM_THREADS"] = "1"
        # A store for each round, of its first rank: in an agent's, gloo finds the addresses of
        # ranks that were killed, and round after round fails.
        found["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        if server is not None:
            found["COORDL_SHM_DIR"] = str(server.directory)
            found["COORDL_PEERS_HOST"] = self.net.host(server.number)
            found["COORDL_PEERS_LINGER_S"] = str(server.linger_s)
            if isinstance(self.net, Spaces):
                found["GLOO_SOCKET_IFNAME"] = "eth0"
        return found

    def start(self, server: Server) -> None:
        command = [*self.net.enter(server.number), sys.executable, "-m", "torch.distributed.run"]
        command += [f"--nnodes=1:{self.count}", "--nproc-per-node=1", "--max-restarts=100000"]
        command += ["--rdzv-backend=c10d", f"--rdzv-id=chaos-{self.rounds}"]
        command += [f"--rdzv-endpoint={self.net.store_host}:{self.port}"]
        command += [f"--rdzv-conf={_RENDEZVOUS}", f"--local-addr={self.net.host(server.number)}"]
        command += ["--monitor-interval=0.1", str(Path(__file__).with_name("chaos_rank.py"))]
        command += [str(self.folder), str(self.home), self.seed]
        server.said.append(self.home / f"said-{server.number}-{len(server.said)}")
        with server.said[-1].open("wb") as said:
            server.agent = subprocess.Popen(
                command, stdout=said, stderr=said, env=self.environment(server)
            )

    def lose(self, server: Server, cache: bool) -> None:
        """All of it dies at once, what served its cache as well, or not."""
        assert server.agent is not None
        victims = [psutil.Process(server.agent.pid)]
        with contextlib.suppress(psutil.Error):
            victims += victims[0].children(recursive=True)
        if not cache:  # the server is a child of a rank's
            victims = [each for each in victims if not _runs(each, "chaos_server.py")]
        elif (pid := server.serving()) is not None:
            with contextlib.suppress(psutil.Error):
                victims.append(psutil.Process(pid))
        for each in victims:
            with contextlib.suppress(psutil.Error):
                each.kill()
        server.agent.wait()
        server.agent = None

    def ended(self, server: Server) -> bool:
        """Its agent has ended by itself."""
        return server.agent is not None and server.agent.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """All that have this cluster's token, but for who calls."""
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get("COORDL_TOKEN") == self.token:
                    found.append(each)
        return found

    def close(self) -> None:
        """Ends whatever is left."""
        if self._store is not None:
            self._store.kill()
            self._store.wait()
            assert self._store.stdout is not None
            self._store.stdout.close()
        for each in self.processes():
            with contextlib.suppress(psutil.Error):
                each.send_signal(signal.SIGCONT)
                each.kill()
        for server in self.servers:
            if server.agent is not None:
                server.agent.wait()
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
