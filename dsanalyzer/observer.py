"""The tool's end of the wire: sees what the job reads, enforces the cached fraction, counts.

One thread serves all connections of the job's processes. Opens feed the page-cache policy; a pass
begins with its files put where the phase wants them, and ends with what was read counted.
"""

from __future__ import annotations

import contextlib
import json
import math
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from dsanalyzer import ranks
from dsanalyzer.hooks.wire import MESSAGE_BYTES, address_of
from dsanalyzer.measure import objects, residency, timing
from dsanalyzer.measure.load import Load
from dsanalyzer.measure.plan import Plan
from dsanalyzer.measure.policy import PageCachePolicy
from dsanalyzer.measure.throttle import ReadThrottle

BLOCKS = {  # phases that read nothing, and what is said of them
    "ingestion": "ingestion: minibatches from memory",
    "delivery": "ingestion: the same out of workers",
    "interference": "ingestion: beside the load of a loader",
    "copy": "ingestion: from pinned memory",
}
# Of minibatches, summed over workers (hooks/workers.py).
LOADED = ("samples", "wall_s", "cpu_s", "queued_s", "collate_s")


class Counters:
    """What the job's processes have read and computed so far, by PID."""

    def __init__(self, root_pid: int) -> None:
        self.read_bytes: dict[int, int] = {}
        self.cpu_s: dict[int, float] = {}
        self.queued_s: dict[int, float] = {}  # runnable, but without a core
        try:
            root = psutil.Process(root_pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            processes = []
        for process in processes:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self.cpu_s[process.pid] = times.user + times.system
                self.read_bytes[process.pid] = process.io_counters().read_bytes
                self.queued_s[process.pid] = _queued_s(process.pid)

    def since(self, earlier: Counters) -> dict[str, Any]:
        """Bytes from storage, seconds on and without a core; who was born since counts from 0."""

        def grown(now: dict[int, Any], before: dict[int, Any]) -> Any:
            return sum(value - before.get(pid, 0) for pid, value in now.items())

        return {
            "read_bytes": grown(self.read_bytes, earlier.read_bytes),
            "cpu_s": grown(self.cpu_s, earlier.cpu_s),
            "queued_s": grown(self.queued_s, earlier.queued_s),
        }


def _queued_s(pid: int) -> float:
    """Seconds the process's main thread has waited for a core; 0 where the kernel does not say."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Observer:
    """Serves one run of the job; results are in its attributes when the job has ended."""

    def __init__(
        self,
        socket_path: Path,
        run_dir: Path,
        *,
        make_policy: Callable[[dict[str, int]], PageCachePolicy] | None = None,
        throttle: ReadThrottle | None = None,
        make_plan: Callable[[dict[str, Any]], Plan] | None = None,
        limit_samples: Callable[[dict[str, Any]], int] | None = None,
        on_progress: Callable[[str], None] = lambda _: None,
        on_watched: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.loaders: list[dict[str, Any]] = []
        self.passes: list[dict[str, Any]] = []
        # What every pass and every minibatch of a worker was doing when.
        self.timeline: list[dict[str, Any]] = []
        self.diverted: list[str] = []
        self.ordinal: int | None = None
        self.step_s: float | None = None  # of ranks, in memory
        self.emulated: str | None = None
        self.refused: str | None = None
        self.gone: str | None = None  # which rank others wait for
        self.failure: BaseException | None = None
        self.silent = False
        self.aimless = False  # it goes on, but does not train
        self.measuring = False  # its training loop is found
        self.since = timing.clock()  # when it began, or first iterated a loader
        self.heard_at = timing.clock()  # when the job last said anything, or was last served
        self.done = threading.Event()
        self.hooked = False
        self.root_pid = 0
        self._run_dir = run_dir
        self._make_policy = make_policy
        self._throttle = throttle
        self._make_plan = make_plan
        self._limit_samples = limit_samples
        self._on_progress = on_progress
        self._on_watched_report = on_watched
        self._policy: PageCachePolicy | None = None
        self._load: Load | None = None  # beside a block of ingestion
        self._followed: dict[str, None] | None = None  # files opened, while a stream is followed
        self._begin_loaded()
        self._absent_bytes: int | None = None  # not in memory when opened, where that is counted
        self._network_bytes = 0  # of objects that were read where they lie
        self._gathered = ranks.Gathered()
        self._rank_of: dict[socket.socket, int] = {}
        self._stop_read, self._stop_write = socket.socketpair()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with address_of(str(socket_path)) as address:
            self._listener.bind(address)
        self._listener.listen(256)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, "accept")
        self._selector.register(self._stop_read, selectors.EVENT_READ, "stop")
        self._thread = threading.Thread(target=self._serve, name="dsanalyzer-observer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop_write.send(b"x")
        self._thread.join()
        self._end_load()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._stop_write.close()

    # -- the serving thread ---------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            timeout = self._policy.next_eviction_s if self._policy else None
            for key, _ in self._selector.select(timeout):
                if key.data == "stop":
                    return
                if key.data == "accept":
                    self._accept()
                else:
                    self._receive(key.fileobj)  # type: ignore[arg-type]
            if self._policy is not None:
                try:
                    self._policy.evict_due()
                except OSError as error:  # a data file is gone, say
                    self.failure = error

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):  # accepted while others were handled
            link, _ = self._listener.accept()
            self._selector.register(link, selectors.EVENT_READ, "job")

    def _receive(self, link: socket.socket) -> None:
        if link.fileno() < 0:
            return  # closed while others were handled that became ready with it
        try:
            data = link.recv(MESSAGE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return  # taken then
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(link)
            self._leaves(link)
            link.close()
            return
        message = json.loads(data)
        if message.get("ranks", 1) == 1 or message["op"] not in ranks.TOGETHER:
            self._answer([link], lambda: message)
            return
        self._rank_of[link] = message["rank"]
        if waiting := self._gathered.add(link, message):
            said = [one for _, one in waiting]
            self._answer([each for each, _ in waiting], lambda: ranks.together(said, self._run_dir))

    def _answer(self, links: list[socket.socket], say: Callable[[], dict[str, Any]]) -> None:
        self.heard_at = math.inf  # the job waits for us
        try:
            message = say()
            reply = getattr(self, "_on_" + message["op"])(message)
            if len(links) > 1 and "samples" in reply:
                reply["samples"] //= len(links)
        except Exception as error:  # the job must not wait for ever for an answer
            self.failure = error
            reply = {"error": str(error)}
        self.heard_at = timing.clock()
        if reply is not None:
            for link in links:
                with contextlib.suppress(OSError):
                    link.send(json.dumps(reply).encode())

    def _leaves(self, link: socket.socket) -> None:
        """The others would wait for a rank that has gone."""
        rank = self._rank_of.pop(link, None)
        waiting = self._gathered.waiting()
        if rank is not None and self.gone is None and waiting and rank not in waiting:
            others = ", ".join(map(str, waiting))
            self.gone = f"rank {rank} ended while the profile went on with others ({others})"

    def _drain_events(self) -> None:
        """Handle every open already sent: they lie in the sockets when a pass ends."""
        busy = True
        while busy:
            busy = False
            for key, _ in self._selector.select(0):
                if key.data == "job":
                    self._receive(key.fileobj)  # type: ignore[arg-type]
                    busy = True
                elif key.data == "accept":
                    self._accept()
                    busy = True

    # -- messages ---------------------------------------------------------------------------------

    def _on_alive(self, message: dict[str, Any]) -> None:
        """That it came says it."""

    def _on_looking(self, message: dict[str, Any]) -> None:
        self._on_progress("looking for what samples are read from")

    def _on_hello(self, message: dict[str, Any]) -> None:
        self.hooked = True

    def _on_open(self, message: dict[str, Any]) -> None:
        if self._policy is not None:
            self._policy.touch(message["path"])
        if "absent_bytes" in message:
            self._absent_bytes = (self._absent_bytes or 0) + message["absent_bytes"]
        self._network_bytes += message.get("network_bytes", 0)
        if self._followed is not None:
            self._followed[message["path"]] = None

    def _begin_loaded(self) -> None:
        """Nothing has been loaded by workers yet in this pass."""
        self._loaded = dict.fromkeys(LOADED, 0.0)
        self._parts: dict[str, list[float]] = {}

    def _on_loaded(self, message: dict[str, Any]) -> None:
        for name in self._loaded:
            self._loaded[name] += message[name]
        for name, seconds in message["parts"].items():
            sums = self._parts.setdefault(name, [0.0, 0.0])
            sums[:] = [one + more for one, more in zip(sums, seconds, strict=True)]
        self.timeline.append(message)

    def _on_diverted(self, message: dict[str, Any]) -> None:
        self.diverted.append(message["path"])

    def _on_refuse(self, message: dict[str, Any]) -> dict[str, Any]:
        self.refused = message["why"]
        return {}

    def _on_steps(self, message: dict[str, Any]) -> dict[str, Any]:
        self.step_s = message["step_s"]
        return {"step_s": self.step_s}

    def _on_loader(self, message: dict[str, Any]) -> dict[str, Any]:
        if message.get("rank", 0) > 0:
            return {}  # it is the first rank's twin
        if not self.loaders:
            self.since = timing.clock()
        self.loaders.append(message["loader"])
        self._on_progress("learning the training loop")
        return {}

    def _on_watched(self, message: dict[str, Any]) -> None:
        self._on_watched_report(message)

    def _on_plan(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._make_plan is not None
        self.measuring = True
        plan = self._make_plan(message)
        size = message.get("size", message["batch"])  # of minibatches of every rank alike
        return {"samples": plan.samples, "rounds": plan.rounds, "size": size}

    def _on_subset(self, message: dict[str, Any]) -> dict[str, Any]:
        self.ordinal, self.emulated = message["ordinal"], message["emulated"]
        loader = self.loaders[message["ordinal"]]
        loader["sample_shape"] = message["sample_shape"]
        loader["batch_size"] = loader["batch_size"] or message["batch_samples"]
        chosen = json.loads((self._run_dir / "subset.json").read_text())
        assert self._limit_samples is not None
        samples = self._limit_samples(chosen)
        if samples < len(chosen["indices"]):
            ranks.shorten_subsets(message.get("ranks", 1), self._run_dir, samples)
        return {"samples": samples}

    def _on_begin(self, message: dict[str, Any]) -> dict[str, Any]:
        self.measuring = True
        if message["phase"] == "follow":
            self._on_progress("following the stream to see what it reads")
            self._drain_events()
            self._followed = {}
            return {}
        if message["phase"] == "interference":
            cores, processes = self._loaders_load()
            self._load = Load(cores, processes, message["cores"])
            return {}
        sizes = self._sizes()
        if message["phase"] != "fetch":
            self._on_progress("prep: reading the subset into memory")
            buffer = bytearray(1 << 20)
            for path in sizes:
                residency.warm(path, buffer)
            expected = 1.0
        else:
            if self._policy is None:
                assert self._make_policy is not None
                self._policy = self._make_policy(sizes)
                for path in sizes:
                    residency.evict(path)
            self._policy.start_pass()
            expected = self._policy.expected_share
        self._before = residency.residency(sizes)
        self._expected_before = expected
        self._drain_events()  # of what led in
        self._begin_loaded()
        self._absent_bytes = None
        self._network_bytes = 0
        self._received_bytes = objects.received_bytes()
        self._on_progress(f"{message['phase']}: pass over {len(sizes)} files")
        self._counters = Counters(self.root_pid)
        self._device_bytes = self._throttle.device_read_bytes() if self._throttle else None
        return {}

    def _on_end(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["phase"] == "follow":
            self._drain_events()
            opened = self._run_dir / "opened.json"
            opened.write_text(json.dumps(list(self._followed or ())))
            self._followed = None
            return {}
        record = json.loads((self._run_dir / message["record"]).read_text())
        kept = ("phase", "round", "steps_s", "waits_s")
        whole = {key: record[key] for key in kept}
        self.timeline.append({"op": "pass", "at_s": record.pop("at_s"), **whole})
        if message["phase"] in BLOCKS:
            if message["phase"] == "interference":
                record["load_cores"] = self._end_load()
            self.passes.append(record)
            self._on_progress(BLOCKS[message["phase"]])
            return {}
        record |= Counters(self.root_pid).since(self._counters) | {"device_bytes": None}
        record["received_bytes"] = objects.received_bytes() - self._received_bytes
        if self._throttle is not None and self._device_bytes is not None:
            now = self._throttle.device_read_bytes()
            record["device_bytes"] = None if now is None else now - self._device_bytes
        self._drain_events()
        if self._loaded["samples"]:
            parts = [
                {"name": name, "wall_s": wall_s, "cpu_s": cpu_s}
                for name, (wall_s, cpu_s) in self._parts.items()
            ]
            record["loaded"] = {**self._loaded, "parts": parts}
        if self._policy is not None:
            self._policy.end_pass()
            record |= {
                "opens": self._policy.opens,
                "missed_files": self._policy.missed_files,
                "missed_bytes": self._policy.missed_bytes,
                "missed_device_bytes": self._policy.missed_device_bytes,
                "resident_expected_after": self._policy.expected_share,
            }
            if self._absent_bytes is not None:  # nobody counts reads of such a mount
                record["read_bytes"] = self._absent_bytes
        record["read_bytes"] += self._network_bytes
        after = residency.residency(self._sizes())
        record |= {
            "resident_before": self._before.share,
            "resident_expected_before": self._expected_before,
            "resident_after": after.share,
            "residency_method": after.method,
        }
        self.passes.append(record)
        return {}

    def _loaders_load(self) -> tuple[float, int]:
        """Cores that the loader kept busy in the last prep pass, and processes to make as much."""
        prep, ingestion = (
            [one for one in self.passes if one["phase"] == phase][-1]
            for phase in ("prep", "ingestion")
        )
        if "loaded" in prep:
            cpu_s = prep["loaded"]["cpu_s"]
            wall_s = prep["wall_s"]
        else:  # all that the job computed since its workers began, but for what training takes
            alone_s = ingestion["cpu_s"] * prep["samples"] / ingestion["samples"]
            cpu_s = max(0.0, prep["cpu_s"] - alone_s)
            wall_s = prep["wall_s"] + prep["start_s"]
        cores = float(cpu_s / wall_s)
        assert self.ordinal is not None
        return cores, max(ranks.readers(self.loaders[self.ordinal]), math.ceil(cores))

    def _end_load(self) -> float:
        """Cores that it kept busy."""
        load, self._load = self._load, None
        return 0.0 if load is None else load.end()

    def _on_done(self, message: dict[str, Any]) -> dict[str, Any]:
        self.emulated = message["emulated"] or self.emulated
        self.done.set()
        return {}

    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = json.loads((self._run_dir / "subset.json").read_text())["sizes"]
        return sizes
