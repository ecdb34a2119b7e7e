"""SIGKILL and SIGSTOP of a server at each named step: the samples are a lone loader's, nobody waits
longer than the deadlines, and nothing is left behind. And how soon each is noticed."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import chaos_strikes
import numpy as np
import pytest
from chaos_cluster import spaces
from emulated import TOKEN, free_port, wait_until

import coordl
from coordl import _native
from coordl import transforms as T
from coordl.fetch.cache import cache_name
from coordl.peers import client as client_module
from coordl.peers import node as own_node
from coordl.peers import steps
from coordl.peers.address import reap_records
from coordl.peers.client import PeerClient
from coordl.peers.secret import Secrets

QUICK = {("serve:found", 9), ("take:checked", 9), ("begin:told", 9), ("serve:asked", 19)}
DEADLINE_S = 0.5
# A minibatch's wait: greeting and asking the other server; and a busy machine.
WAIT_S = 2 * DEADLINE_S + 2


def cases() -> list[Any]:
    return [
        pytest.param(
            step,
            number,
            id=f"{step}-{number.name}",
            marks=[] if (step, int(number)) in QUICK else pytest.mark.slow,
        )
        for step in steps.OF_SERVERS
        for number in chaos_strikes.SIGNALS
    ]


def loader_of(folder: Path, **options: Any) -> Any:
    data = coordl.ImageFolder(str(folder), T.Compose([T.RandomResizedCrop(32), T.ToTensor()]))
    return coordl.DataLoader(data, 2, seed=3, num_workers=1, prep="native", **options)


def struck_at(orders: Path) -> list[list[str]]:
    told = orders / "struck"
    return [line.split() for line in told.read_text().splitlines()] if told.exists() else []


@contextlib.contextmanager
def gone_on_with(orders: Path, after_s: float) -> Any:
    """Whoever is stopped at a step goes on after some time."""
    end = threading.Event()

    def watch() -> None:
        while not end.wait(0.05):
            for pid, _, number, *_ in struck_at(orders):
                if int(number) == signal.SIGSTOP:
                    end.wait(after_s)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        for pid, *_ in struck_at(orders):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGCONT)


@pytest.mark.parametrize(("step", "number"), cases())
def test_a_server_struck_at_a_step_changes_no_sample(
    folder, make_node, monkeypatch, tmp_path, step, number
) -> None:
    monkeypatch.setattr(client_module, "DEADLINE_S", DEADLINE_S)
    orders = tmp_path / "orders"
    orders.mkdir()
    server = str(Path(__file__).with_name("chaos_server.py"))
    monkeypatch.setattr(own_node, "_SERVER", (server, str(orders)))
    node = make_node(cache_name(str(folder))).start()
    own = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("COORDL_PEERS_SELF", own)
    lone = loader_of(folder)
    plain = [tensor.tolist() for _ in range(2) for batch in lone for tensor in batch]
    chaos_strikes.order(orders, step, number)
    ours, longest = [], 0.0
    with gone_on_with(orders, 3 * DEADLINE_S), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = loader_of(folder, cache="64MiB", peers=[own, node.address])
        iterator = iter(loader)
        ours += next(iterator)
        for epoch in range(2):
            iterator = iterator if epoch == 0 else iter(loader)
            while True:
                began = time.monotonic()
                batch = next(iterator, None)
                longest = max(longest, time.monotonic() - began)
                if batch is None:
                    break
                ours += batch
        del loader, iterator
        if step.startswith("end:"):  # our own server's users have gone
            wait_until(lambda: struck_at(orders))
        for pid, *_ in struck_at(orders):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGCONT)
    assert [tensor.tolist() for tensor in ours] == plain
    assert [each[1:3] for each in struck_at(orders)] == [[step, str(int(number))]]
    assert longest < WAIT_S
    # What was killed left its record, which the next look removes.
    wait_until(lambda: own_node.running(cache_name(str(folder))) is None)
    reap_records()


KEYS = np.array([[1, 2]], np.uint64)
_ASKS = """
import sys, time, numpy as np
from coordl.peers.client import PeerClient
from coordl.peers.secret import Secrets
client = PeerClient(sys.argv[1], "data", Secrets.from_environment())
try:
    while True:
        began = time.monotonic()
        client.get(np.array([[1, 2]], np.uint64), 0)
        print("answered", flush=True)
        time.sleep(0.05)
except OSError:
    print(f"lost {time.monotonic() - began}", flush=True)
"""


def seconds(found: list[float]) -> str:
    ordered = sorted(found)
    return f"{statistics.median(ordered):.3f} s ({ordered[0]:.3f} to {ordered[-1]:.3f})"


@pytest.mark.slow
@pytest.mark.alone
def test_how_soon_a_killed_and_a_hung_server_are_noticed(make_node, monkeypatch) -> None:
    """Killed: an ask that is under way ends with the connection. Hung: with its deadline."""
    monkeypatch.setattr(client_module, "DEADLINE_S", 2.0)
    killed, hung = [], []
    for _ in range(5):
        node = make_node().start()
        client = PeerClient(node.address, node.name, Secrets.from_environment())
        client.hello()
        node.signal(signal.SIGSTOP)  # so that the ask is under way when it is killed
        noticed: list[float] = []

        def ask(client: PeerClient = client, noticed: list[float] = noticed) -> None:
            with contextlib.suppress(OSError):
                client.get(KEYS, 10**9)
            noticed.append(time.monotonic())

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        node.signal(signal.SIGKILL)
        thread.join()
        killed.append(noticed[0] - began)
        node.start()
        client.drop()
        client.hello()
        node.signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(OSError, match="Deadline"):
            client.get(KEYS, 0)
        hung.append(time.monotonic() - began)
        node.signal(signal.SIGCONT)
        client.drop()
    print(f"\nkilled: {seconds(killed)}; hung, deadline 2 s: {seconds(hung)}")
    assert statistics.median(killed) < 0.1
    assert all(2 <= each < 2.5 for each in hung)


@pytest.mark.slow
@pytest.mark.alone
def test_how_soon_a_server_that_is_cut_off_is_noticed(here, tmp_path) -> None:
    with contextlib.ExitStack() as stack:
        try:
            net = stack.enter_context(spaces(2))
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            pytest.skip(f"no network namespaces here: {said.decode().strip()}")
        arena = _native.Arena.open("data", 1 << 20, 100)
        arena.admit(1, 2, b"an item of some length")
        serve = [*net.enter(1), sys.executable, "-m", "coordl.peers.server", "--name", "data"]
        serve += ["--host", net.host(1), "--port", "7070", "--linger", "0"]
        server = subprocess.Popen(serve)
        wait_until(lambda: own_node.running("data") is not None)
        took = []
        for _ in range(3):
            ask = [*net.enter(0), sys.executable, "-c", _ASKS, f"{net.host(1)}:7070"]
            environment = {**os.environ, "COORDL_TOKEN": TOKEN}
            asking = subprocess.Popen(ask, stdout=subprocess.PIPE, env=environment)
            assert asking.stdout is not None
            for _ in range(3):
                assert asking.stdout.readline() == b"answered\n"
            net.link(1, up=False)
            last = asking.stdout.read().splitlines()[-1].split()
            assert last[0] == b"lost"
            took.append(float(last[1]))
            net.link(1, up=True)
            asking.stdout.close()
            assert asking.wait() == 0
        arena.close()
        assert server.wait(20) == 0
    print(f"\ncut off, deadline 2 s: {seconds(took)}")
    assert all(2 <= each < 2.5 for each in took)
