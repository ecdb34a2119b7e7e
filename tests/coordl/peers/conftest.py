"""Servers of a job, emulated: each node has a directory of arenas of its own, on loopback."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordl import _native
from coordl.peers import node as own_node
from coordl.peers.address import record_path

TOKEN = "0123456789abcdef0123456789abcdef"
PICTURES = 22


class Node:
    """Another server: its arena, held open by the test, and the process that serves it."""

    def __init__(self, name: str, budget: int = 64 << 20) -> None:
        self.directory = tempfile.mkdtemp(prefix="coordl-test-", dir="/dev/shm")
        self.name, self.port = name, free_port()
        with self.here():
            self.arena = _native.Arena.open(name, budget, 1024)
        self.process: subprocess.Popen | None = None
        self.environment: dict[str, str] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def here(self) -> Iterator[None]:
        """This process is on that node."""
        before = os.environ.get("COORDL_SHM_DIR")
        os.environ["COORDL_SHM_DIR"] = self.directory
        yield
        if before is None:
            del os.environ["COORDL_SHM_DIR"]
        else:
            os.environ["COORDL_SHM_DIR"] = before

    def start(self) -> Node:
        """Starts its server and waits until it listens."""
        environment = {**os.environ, "COORDL_SHM_DIR": self.directory, **self.environment}
        command = [sys.executable, "-m", "coordl.peers.server", "--name", self.name]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--linger", "0"]
        self.process = subprocess.Popen(command, env=environment, start_new_session=True)
        with self.here():
            wait_until(lambda: own_node.running(self.name) is not None or self.process.poll())
        assert self.process.poll() is None
        return self

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        self.arena.close()  # the server is alone now, and ends
        if self.process is not None and self.process.poll() is None:
            assert self.process.wait(timeout=20) == 0
            assert os.listdir(self.directory) == []
        shutil.rmtree(self.directory)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This node's directory; empty afterwards, and no descriptor or server more than before."""
    directory = Path(tempfile.mkdtemp(prefix="coordl-test-", dir="/dev/shm"))
    monkeypatch.setenv("COORDL_SHM_DIR", str(directory))
    monkeypatch.setenv("COORDL_TOKEN", TOKEN)
    monkeypatch.setenv("COORDL_PEERS_LINGER_S", "0")
    monkeypatch.delenv("COORDL_PEERS_SELF", raising=False)
    _connect_once()
    before = set(os.listdir("/proc/self/fd"))
    yield directory
    gc.collect()
    wait_until(lambda: all(each.poll() is not None for each in own_node._STARTED))
    _native.reap_arenas()
    left = [path.name for path in directory.iterdir() if not path.name.endswith(".lock")]
    assert left == []
    wait_until(lambda: len(set(os.listdir("/proc/self/fd"))) <= len(before), 20)
    shutil.rmtree(directory)


def _connect_once() -> None:
    """gRPC opens descriptors for itself that stay: not what tests look for."""
    import pyarrow.flight as flight

    client = flight.FlightClient("grpc+tcp://127.0.0.1:9")
    with pytest.raises(flight.FlightError):
        list(client.do_action(flight.Action("x", b""), flight.FlightCallOptions(timeout=1)))
    client.close()


@pytest.fixture
def make_node() -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(name: str = "data", budget: int = 64 << 20) -> Node:
        nodes.append(Node(name, budget))
        return nodes[-1]

    yield make
    for each in nodes:
        each.end()


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    """An image folder: 22 photographs (copies of the four) in 2 classes."""
    root = tmp_path / "pictures"
    for number in range(PICTURES):
        home = root / f"class{number % 2}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number % len(photos)], home / f"{number:03}.jpg")
    return root


__all__ = ["PICTURES", "TOKEN", "Node", "free_port", "record_path", "wait_until"]
