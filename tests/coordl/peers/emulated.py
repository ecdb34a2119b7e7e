"""A server of a job, emulated: a directory of arenas of its own, on loopback."""

from __future__ import annotations

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

import psutil

from coordl import _native
from coordl.peers import node as own_node

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
        command = [sys.executable, *own_node._SERVER, "--name", self.name]
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
        if number == signal.SIGSTOP:
            wait_until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

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
