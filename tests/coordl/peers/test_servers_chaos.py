"""Servers of an elastic torchrun job that are killed, stopped, cut off, lost and added at random.

COORDL_CHAOS_S=600 python -m pytest -s -m slow tests/coordl/peers/test_servers_chaos.py
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chaos_rank
import chaos_strikes
import pytest
from chaos_cluster import Cluster, Loopback, Server, Spaces, spaces
from emulated import wait_until

from coordl.peers import steps

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("COORDL_CHAOS_S", "60"))
SEED = int(os.environ.get("COORDL_CHAOS_SEED", "1"))
SERVERS, PICTURES = 3, 60
DEADLINE_S = 0.5
# A minibatch may wait for two servers, one after the other, each while it is greeted and asked;
# and for a machine on which all this runs at once.
WAIT_S = (SERVERS - 1) * 2 * DEADLINE_S + 2.0
# The first of a process also waits for its node's server to start, and for the others'.
FIRST_WAIT_S = chaos_rank.HANGS_S
# torchrun's agents may wait for one another in vain, where one of them was lost while they met.
MEETS_S = 15.0  # without a rank
NO_EPOCH_S = 2 * FIRST_WAIT_S  # with some: who hangs has said so before
ENDS_S = 120.0  # who takes so long to end waits for what will not come
_WHAT = {signal.SIGKILL: "kills at ", signal.SIGSTOP: "stops at "}


class Chaos:
    """`happened` counts what was done, and what came of it."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster, self.home = cluster, cluster.home
        self.rng = random.Random(seed)
        self.happened: Counter = Counter()
        self.stops: dict[int, list[list[float]]] = {}  # of each process: began, ended
        self.workers: dict[int, int] = {}  # that were stopped, and their parents
        self.until: dict[int, float] = {}  # of those stopped now
        self.down: dict[int, float] = {}  # links, and until when
        self.back: dict[int, float] = {}  # servers that are away, and until when
        self.noted = 0  # lines of `struck` read
        self.longest_s = 0.0
        self.verified = 0  # when something costly was done
        self.moved = (0, time.monotonic())  # how far it was, and since when

    def run(self, seconds: float) -> None:
        for server in self.cluster.servers:
            self.cluster.start(server)
        self._epochs(3)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._one_more_thing()
            time.sleep(self.rng.random() * 0.4)
            self._look_after()
        self._calm()

    def _epochs(self, count: int) -> None:
        """Waits until so many more epochs were verified."""
        wanted, deadline = len(self._did()) + count * SERVERS, time.monotonic() + ENDS_S
        while len(self._did()) < wanted:
            assert time.monotonic() < deadline, "no epochs are verified"
            time.sleep(0.1)
            self._look_after()

    # -- what is done ------------------------------------------------------------------------

    def _one_more_thing(self) -> None:
        chance = self.rng.random()
        if chance < 0.25:
            self._harm_server()
        elif chance < 0.35:
            self._order_strike(steps.OF_SERVERS)
        elif chance < 0.4 and isinstance(self.cluster.net, Spaces):
            self._cut()
        elif chance < 0.65 and self._goes_on():
            costly = self.rng.random()
            if costly < 0.35:
                self._order_strike(steps.OF_RANKS)
            elif costly < 0.5:
                self._harm_rank()
            elif len(self._did()) >= self.verified + 2 * SERVERS:  # not while agents meet
                self._lose_server() if costly < 0.9 else self._lose_store_host()
            self.verified = len(self._did())

    def _goes_on(self) -> bool:
        """Whether epochs were verified since this was true; also now and then while they were not.
        What it is asked for may cost all ranks a restart."""
        return len(self._did()) >= self.verified + 2 * SERVERS or self.rng.random() < 0.02

    def _harm_server(self) -> None:
        pid = self.rng.choice(self.cluster.servers).serving()
        if pid is None or pid in self.until:
            return
        if self.rng.random() < 0.5:
            self._send(pid, signal.SIGKILL, "kills of a serving process")
        else:
            self._send(pid, signal.SIGSTOP, "stops of a serving process")

    def _harm_rank(self) -> None:
        ranks = self.rng.choice(self.cluster.servers).ranks()
        if not ranks or ranks[0].pid in self.until:
            return
        number = self.rng.choice((signal.SIGKILL, signal.SIGSTOP))
        self._send(ranks[0].pid, number, f"{_WHAT[number].split()[0]} of a rank")

    def _send(self, pid: int, number: int, what: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            self._did_harm(what, pid)
            if number == signal.SIGSTOP:
                self._stopped(pid)

    def _did_harm(self, what: str, to: int) -> None:
        """Counts it, and says when, for who asks what a minibatch waited for."""
        self.happened[what] += 1
        chaos_strikes.note(self.home / "harms", f"{time.monotonic():.2f} {what}: {to}")

    def _stopped(self, pid: int, when: float | None = None) -> None:
        now = time.monotonic()
        self.stops.setdefault(pid, []).append([now if when is None else when, now])
        self.until[pid] = now + self.rng.random() * 6 * DEADLINE_S

    def _order_strike(self, of: tuple[str, ...]) -> None:
        """Rare steps are tried as often as it takes; of ranks', which each cost all of them a
        restart, first those at which nobody was struck yet."""
        number = self.rng.choice((signal.SIGKILL, signal.SIGSTOP))
        orders = self.home / "orders"
        ordered = {order.name.partition("@")[0] for order in orders.glob("*@*")}

        def met(step: str) -> tuple[bool, bool, int]:
            count = self.happened[_WHAT[number] + step]
            if of is steps.OF_SERVERS:
                return False, False, count
            struck = any(self.happened[what + step] for what in _WHAT.values())
            return step in ordered, struck, count

        some = self.rng.sample(of, 6 if of is steps.OF_SERVERS else len(of))
        chaos_strikes.order(orders, min(some, key=met), number)

    def _lose_server(self) -> None:
        servers = [server for server in self.cluster.servers if server.agent is not None]
        if len(servers) < 2:
            return
        server, cache = self.rng.choice(servers), self.rng.random() < 0.5
        what = "servers lost" if cache else "servers lost but for their caches"
        self._did_harm(what, server.number)
        self.cluster.lose(server, cache)
        self.back[server.number] = time.monotonic() + self.rng.uniform(4, 20)

    def _lose_store_host(self) -> None:
        """The rendezvous is gone: every agent ends, and a new job goes on from the checkpoint."""
        self._did_harm("store hosts lost", 0)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.moved = self.moved[0], time.monotonic()
        for server in self.cluster.servers:
            if server.agent is not None:
                self.cluster.lose(server, cache=False)
        self.cluster.meet()
        for server in self.cluster.servers:
            if server.number not in self.back:
                self.cluster.start(server)

    def _cut(self) -> None:
        number = self.rng.randrange(SERVERS)
        if number not in self.down:
            self.cluster.net.link(number, up=False)
            self._did_harm("links down", number)
            self.down[number] = time.monotonic() + self.rng.uniform(0.2, 3)

    # -- what follows from it ----------------------------------------------------------------

    def _look_after(self) -> None:
        now = time.monotonic()
        for pid in [pid for pid, until in self.until.items() if until < now]:
            self._go_on(pid)
        for number in [number for number, until in self.down.items() if until < now]:
            self._up(number)
        for number in [number for number, until in self.back.items() if until < now]:
            self._add(self.cluster.servers[number])
        struck = self.home / "orders" / "struck"
        lines = struck.read_text().splitlines() if struck.exists() else []
        for line in lines[self.noted :]:
            pid, step, number, parent, when = line.split()
            self.happened[_WHAT[signal.Signals(int(number))] + step] += 1
            if int(number) == signal.SIGSTOP:
                self._stopped(int(pid), float(when))
                if step in steps.OF_RANKS:  # perhaps a worker of it: then the rank waits as long
                    self.workers[int(pid)] = int(parent)
        self.noted = len(lines)
        for server in self.cluster.servers:
            if self.cluster.ended(server):  # torchrun gives up now and then: a driver starts it
                self.happened["agents that ended"] += 1
                self.cluster.start(server)
        verified, now = len(self._did()), time.monotonic()
        if verified != self.moved[0]:
            self.moved = verified, now
        elif now - self.moved[1] > MEETS_S:
            if now - self.moved[1] > NO_EPOCH_S:
                self.happened["jobs begun anew, as no epoch ended"] += 1
                self._show()
                self._begin_anew()
            elif not any(server.ranks() for server in self.cluster.servers):
                self.happened["jobs begun anew, as torchrun's agents did not meet"] += 1
                self._begin_anew()
        failures = self.home / "failures"
        assert not failures.exists(), failures.read_text()
        for path in self.home.glob("hangs-*"):
            if path.stat().st_size:
                stacks = path.with_name(path.name.replace("hangs", "stacks"))
                raise AssertionError(f"a rank hangs: {path.read_text()}\n{stacks.read_text()}")

    def _show(self) -> None:
        """What the ranks are at."""
        pids = [rank.pid for server in self.cluster.servers for rank in server.ranks()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        time.sleep(0.5)
        for pid in pids:
            stack = self.home / f"stacks-{pid}"
            print(f"no epoch ended: rank {pid}\n{stack.read_text() if stack.exists() else ''}")

    def _go_on(self, pid: int) -> None:
        self._did_harm("goes on", pid)
        del self.until[pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        self.stops[pid][-1][1] = time.monotonic()

    def _up(self, number: int) -> None:
        self._did_harm("links up", number)
        del self.down[number]
        self.cluster.net.link(number, up=True)

    def _add(self, server: Server) -> None:
        del self.back[server.number]
        self._did_harm("servers added", server.number)
        self.cluster.start(server)

    def _calm(self) -> None:
        """All goes on undisturbed; then the job ends with its epoch."""
        for order in (self.home / "orders").glob("*@*"):
            order.unlink(missing_ok=True)
        self._look_after()
        for pid in list(self.until):
            self._go_on(pid)
        for number in list(self.down):
            self._up(number)
        for number in list(self.back):
            self._add(self.cluster.servers[number])
        self._look_after()
        for pid in list(self.until):
            self._go_on(pid)
        self._epochs(2)
        (self.home / "stop").touch()
        self._ends()

    def _ends(self) -> None:
        """All ranks end. An agent that was about to join them is told nothing of it by torchrun."""
        left, deadline, through = list(self.cluster.servers), time.monotonic() + ENDS_S, False
        without: Counter = Counter()  # looks at which an agent had no rank, one after the other
        while left:
            assert time.monotonic() < deadline, f"ranks hang of {[each.number for each in left]}"
            time.sleep(0.1)
            for server in list(left):
                assert server.agent is not None
                code = server.agent.poll()
                said = server.said[-1].read_text()
                if code == 0:
                    through = True
                elif code is None and through and without[server.number] > 50:
                    self.happened["agents that wait in vain at the end"] += 1
                    self.cluster.lose(server, cache=False)
                elif code is None:
                    idle = without[server.number] + 1
                    without[server.number] = 0 if server.ranks() else idle
                    continue
                else:
                    assert "RendezvousClosedError" in said, said[-3000:]
                left.remove(server)

    # -- what is checked ---------------------------------------------------------------------

    def _did(self) -> list[dict[str, Any]]:
        told = self.home / "did"
        return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    def check(self) -> None:
        did = self._did()
        for each in did:
            self.happened[f"epochs of ranks verified, {each['prep']}"] += 1
            for name in ("hits", "remote_hits", "misses"):
                self.happened[f"samples: {name.replace('_', ' ')}"] += each[name]
        epochs = [each for each in did if each["rank"] == 0]
        for each in epochs:
            whole = "torch's indices" if each["whole"] else "once, over a change of ranks"
            self.happened[f"epochs, {whole}"] += 1
            self.happened[f"epochs of {each['world']} ranks"] += 1
        last = {each["pid"]: each for each in did}
        for name in ("lost", "handed_over", "damaged"):
            count = sum(each.get(name, 0) for each in last.values())
            self.happened[f"by ranks that verified: {name.replace('_', ' ')}"] = count
        self._check_waits()
        self._check_descriptors(did)

    def _check_waits(self) -> None:
        waits = self.home / "waits"
        for line in waits.read_text().splitlines() if waits.exists() else []:
            pid, *rest = line.split()
            began, ended, first = map(float, rest)
            of = [int(pid), *(one for one, rank in self.workers.items() if rank == int(pid))]
            stopped, until = 0.0, began
            for a, b in sorted(stop for one in of for stop in self.stops.get(one, [])):
                stopped += max(0.0, min(ended, b) - max(until, a))
                until = max(until, min(ended, b))
            waited = ended - began - stopped
            if first:
                assert waited < FIRST_WAIT_S
            else:
                self.longest_s = max(self.longest_s, waited)
        assert self.longest_s < WAIT_S, (
            f"a minibatch came after {self.longest_s:.2f} s: see stacks-PID, harms and "
            f"orders/struck in {self.home}"
        )

    def _check_descriptors(self, did: list[dict[str, Any]]) -> None:
        """Of a rank that lives long: no more at its end than in its second epoch, but for what
        connects it with servers that were away then."""
        by_pid: dict[int, list[int]] = {}
        for each in did:
            by_pid.setdefault(each["pid"], []).append(each["descriptors"])
        grown = [counts[-1] - counts[1] for counts in by_pid.values() if len(counts) > 2]
        self.happened["most descriptors more"] = max(grown, default=0)
        assert max(grown, default=0) <= 12


@pytest.fixture
def many(class_folder: Callable[..., Path]) -> Path:
    return class_folder(PICTURES)


@pytest.fixture(params=["loopback", "namespaces"])
def net(request: pytest.FixtureRequest) -> Iterator[Loopback | Spaces]:
    if request.param == "loopback":
        yield Loopback()
        return
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(spaces(SERVERS))
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            pytest.skip(f"no network namespaces here: {said.decode().strip()}")
        yield made


def test_whatever_happens_each_epoch_verifies(
    here: Path, many: Path, tmp_path: Path, net: Loopback | Spaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COORDL_PEERS_DEADLINE_S", str(DEADLINE_S))
    monkeypatch.setenv("COORDL_PEERS_SETTLE_S", "1")
    home = tmp_path / "home"
    home.mkdir()
    cluster = Cluster(home, many, here, SERVERS, net)
    chaos = Chaos(cluster, SEED)
    try:
        chaos.run(SECONDS)
        chaos.check()
        # the serving processes end by themselves
        wait_until(lambda: len(cluster.processes()) == 1, 40)  # the store's is left
    except BaseException:
        for server in cluster.servers:
            if server.said:
                print(f"--- server {server.number}\n{server.said[-1].read_text()[-2000:]}")
        raise
    finally:
        cluster.close()
        print(f"\n{SECONDS:.0f} s, seed {SEED}; longest wait {chaos.longest_s:.2f} s")
        print("\n".join(f"{count:8,} {what}" for what, count in sorted(chaos.happened.items())))
    # what was killed left nothing that the next look does not remove
    for server in cluster.servers:
        look = [sys.executable, "-m", "coordl.cli", "status"]
        environment = cluster.environment(server)
        subprocess.run(look, check=True, stdout=subprocess.DEVNULL, timeout=60, env=environment)
        left = [path.name for path in server.directory.iterdir()]
        assert [name for name in left if not name.endswith(".lock")] == []
        shutil.rmtree(server.directory)
    happened = chaos.happened
    usual = {"samples: remote hits", "epochs, torch's indices"}
    if SECONDS >= 60:
        usual |= {"kills of a serving process", "stops of a serving process"}
    if SECONDS >= 300:  # some are rare
        usual |= {"servers lost", "servers added", "store hosts lost", "kills of a rank"}
        usual |= {"stops of a rank", "epochs, once, over a change of ranks"}
        usual |= {what + step for what in _WHAT.values() for step in steps.OF_SERVERS}
        # Each costs all ranks a restart: both signals at each would take longer.
        unharmed = [
            s for s in steps.OF_RANKS if not any(what + s in happened for what in _WHAT.values())
        ]
        assert unharmed == []
        usual |= {"links down"} if isinstance(net, Spaces) else set()
    assert usual <= set(happened), usual - set(happened)
