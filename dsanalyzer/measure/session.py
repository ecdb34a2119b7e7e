"""Measures one training command: a run for ingestion and prep, storage alone, a run for fetch."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psutil

from coordl.cgroups import memory_limit
from dsanalyzer import ranks, stalls
from dsanalyzer.job import Job, Running, bound_to_tool
from dsanalyzer.measure import plan, residency, timing
from dsanalyzer.measure.mounts import mount_of
from dsanalyzer.measure.plan import MOST_EPOCHS, MOST_ROUNDS, MOST_SAMPLES, Plan, Speeds
from dsanalyzer.measure.policy import PageCachePolicy
from dsanalyzer.measure.throttle import NEARLY, ReadThrottle, reap_stale
from dsanalyzer.observer import Observer
from dsanalyzer.predict.model import hit_rate

_NO_GPU = (
    "Torch not compiled with CUDA enabled",
    "Found no NVIDIA driver",
    "No CUDA GPUs are available",
    "no CUDA-capable device",
)
MEMORY_SHARE = 0.5  # of the available memory that the measured subset may occupy
STORAGE_LIMIT_S = 3.0
MOST_WORKERS = 1024
LATENCY_ITEMS = 128
TYPICAL_ITEM_BYTES = 110_000
_RUN_PREFIX = "dsanalyzer-"


class Progress(Protocol):
    """Called with the phase that begins; `total_s` is what the profile should take, once known."""

    total_s: float

    def __call__(self, text: str) -> None: ...


# (folder of the run, throttle, file for the output) -> the running job
Start = Callable[[Path, ReadThrottle | None, Any], Running]


class NotMeasured(Exception):
    """There is no result; the message says why and what to do.

    Attributes:
        log: the job's own output, where that may explain it.
        part: the training loader and the passes there were until then; see dsanalyzer.partial.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.part: tuple[dict[str, Any], list[dict[str, Any]]] | None = None


@contextlib.contextmanager
def cannot_run(command: Sequence[str]) -> Iterator[None]:
    """Within it, a command that is not there, or may not be run, raises NotMeasured."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise NotMeasured(f"cannot run {command[0]!r}: {error.strerror}") from error


def hint(log: str) -> str:
    """What to do about a script's own error that a profile makes likely; else nothing."""
    last = log[-2000:]
    if "EOF when reading a line" in last:
        return (
            ": it asked for input, and a profiled job, which runs twice, has none. Give its "
            "answers as arguments, or profile `bash -c 'yes | python train.py'`"
        )
    if any(words in last for words in _NO_GPU):
        return (
            ": it wants a GPU and there is none here. Let it train on the CPU (most scripts have "
            "an option for that) and name the GPU's speed with --gpu-rate N samples/s, which "
            "stands in for it"
        )
    return ""


@dataclass(frozen=True)
class Options:
    """What to measure, and under which conditions.

    Args:
        policy: "lru" or "never-evict", how the emulated page cache behaves in the fetch phase.
        cached_fraction: share of the data set's bytes it may hold, 0 to 1.
        storage_bytes_per_s: limit the job's reads; None leaves storage as it is.
        gpu_rate: samples/s of an emulated accelerator; None measures the real one.
        gpu_trace: seconds per sample of recorded steps, which it then takes by turns.
        budget_s: seconds the profile should take at most.
        samples: samples to measure on; all, when that is most of the data set.
        rounds: interleaved blocks of ingestion and prep.
        block_s: seconds of each ingestion block.
        epochs: fetch passes, the first of them cold.
            Where samples, rounds or epochs are None the budget decides.
        seed: of the order of samples and of the bootstrap.
        divert: whether checkpoints the job writes go elsewhere.
        sweep: numbers of workers with which prep alone is measured besides the job's own.
        threshold: share of the epoch below which a stall is of no relevance, above 0 and below 1.
        patience_s: seconds of silence after which the job is taken to hang.
    """

    policy: str = "lru"
    cached_fraction: float = 0.5
    storage_bytes_per_s: float | None = None
    gpu_rate: float | None = None
    gpu_trace: tuple[float, ...] = ()
    budget_s: float = 180.0
    samples: int | None = None
    rounds: int | None = None
    block_s: float = 2.0
    epochs: int | None = None
    seed: int = 0
    divert: bool = True
    sweep: tuple[int, ...] = ()
    threshold: float = stalls.THRESHOLD
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        if self.policy not in ("lru", "never-evict"):
            raise ValueError(f"policy is {self.policy!r}; choose lru or never-evict")
        if not 0 <= self.cached_fraction <= 1:
            raise ValueError(
                f"cached fraction is {self.cached_fraction}; give 0 to 1, or 0% to 100%"
            )
        for name in ("storage_bytes_per_s", "gpu_rate", "block_s", "budget_s", "patience_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; give a positive number")
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"threshold is {self.threshold}; give a share of the epoch, such as 2%"
            )
        if any(not 1 <= workers <= MOST_WORKERS for workers in self.sweep):
            raise ValueError(f"numbers of workers to sweep over must be 1 to {MOST_WORKERS}")
        least = {"samples": 1, "rounds": 1, "epochs": 2}
        if any((getattr(self, name) or low) < low for name, low in least.items()):
            raise ValueError("samples and rounds must be at least 1, epochs at least 2")


@dataclass
class Measured:
    """Everything the two runs saw, before any arithmetic.

    `rounds` of the first run, as planned. `timelines` of both runs: what happened when. `took_s`:
    all of it. `recorded_bytes`: of the minibatches kept in the job, of all its ranks.
    `own_process`: the tool's; else it is that of who asked, with all that is in it.
    """

    loader: dict[str, Any]
    subset: dict[str, Any]
    passes: list[dict[str, Any]]
    storage: dict[str, Any]
    storage_method: str | None
    emulated: str | None
    diverted: list[str]
    rounds: int
    timelines: list[tuple[str, list[dict[str, Any]]]]
    took_s: float
    recorded_bytes: int
    own_process: bool


def _reap_stale_runs(root: Path) -> None:
    for old in root.glob(_RUN_PREFIX + "*"):
        pid = old.name.removeprefix(_RUN_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """A private directory for one profile; those of tools that were killed are removed first."""
    root = Path(tempfile.gettempdir())
    _reap_stale_runs(root)
    reap_stale()
    directory = Path(tempfile.mkdtemp(prefix=f"{_RUN_PREFIX}{os.getpid()}-", dir=root))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _hold(row: dict[str, Any], throttle: ReadThrottle) -> None:
    """Storage that reached the rate it is held to has that rate.

    The reader has no hooks, so pacing did not hold it; and a control group lets a tenth of a second
    through at once, which is much of a short run.
    """
    if not row["read_bytes"]:  # memory answered, which a check says
        return
    reached = row["read_bytes"] / row["bytes"] * row["bytes_per_s"]  # of whole pages
    by = throttle.bytes_per_s / reached
    if by > 1 / NEARLY or (by > 1 and throttle.method == "pacing"):
        return
    for name in ("bytes_per_s", "samples_per_s"):
        row[name] *= by
    row["slices"] = [rate * by for rate in row["slices"]]
    for one in row["by_size"]:
        one["read_s"] /= by
    if throttle.method == "pacing":
        row["slices"] = [row["samples_per_s"]]


def _check_pacing(path: str, method: str) -> None:
    """Pacing charges for the pages that are not in memory, and has to see which."""
    if method == "pacing" and residency.resident_pages(path)[2] == "unknown":
        raise NotMeasured(
            "--storage cannot be held here: there is no control group for it, and for the tool's "
            f"own pacing the kernel does not show which pages of {path} are in memory, a file you "
            "neither own nor may write. Leave out --storage, profile as the files' owner, or a copy"
        )


class Session:
    """One profile of one command."""

    def __init__(
        self,
        command: Sequence[str],
        options: Options,
        directory: Path,
        progress: Progress,
        *,
        start: Start | None = None,
    ) -> None:
        """`start` starts the job where it is not the command."""
        self.command = list(command)
        self._start = start or self._start_command
        self.options = options
        self._directory = directory
        self._progress = progress
        self._phase = ""
        self._passes: list[dict[str, Any]] = []
        self._diverted: list[str] = []
        self._timelines: list[tuple[str, list[dict[str, Any]]]] = []
        self._emulated: str | None = None
        self._loader: dict[str, Any] | None = None  # the training loader, once it is known
        self.plan: Plan | None = None
        self._batch = 1

    def measure(self) -> Measured:
        """Raises NotMeasured; KeyboardInterrupt leaves nothing running."""
        try:
            return self._measure()
        except NotMeasured as error:
            if self._loader is not None:
                error.part = self._loader, self._passes
            raise

    def _measure(self) -> Measured:
        began = timing.clock()
        rates = self._run("rates", {})
        assert rates.ordinal is not None
        subset = self._subset()
        if not subset["indices"]:
            raise NotMeasured(subset["why"])
        method = None
        with contextlib.ExitStack() as stack:
            throttle = None
            if self.options.storage_bytes_per_s is not None:
                throttle = stack.enter_context(
                    ReadThrottle(next(iter(subset["sizes"])), self.options.storage_bytes_per_s)
                )
                method = throttle.method
                _check_pacing(next(iter(subset["sizes"])), method)
            storage = self._storage(subset, rates.loaders[rates.ordinal], throttle)
            assert self.plan is not None
            fetch = {
                "loader_ordinal": rates.ordinal,
                "step_s": rates.step_s,
                "size": self._size,
                "epochs": self.plan.epochs,
                "samples": len(subset["indices"]),
                "served": mount_of(next(iter(subset["sizes"]))).served,
            }
            self._run("fetch", fetch, throttle)
        return Measured(
            rates.loaders[rates.ordinal],
            subset,
            self._passes,
            storage,
            method,
            self._emulated,
            sorted(set(self._diverted)),
            self.plan.rounds,
            self._timelines,
            timing.clock() - began,
            sum(file.stat().st_size for file in self._directory.glob("batches*.pt")),
            self._start == self._start_command,
        )

    # -- runs -----------------------------------------------------------------------------------

    def _run(
        self, kind: str, extra: dict[str, Any], throttle: ReadThrottle | None = None
    ) -> Observer:
        run_dir = self._directory / kind
        diverted = run_dir / "diverted"
        diverted.mkdir(parents=True)
        subset_file = run_dir / "subset.json"
        if kind == "fetch":
            for file in (self._directory / "rates").glob("subset*.json"):  # ranks have their own
                shutil.copy(file, run_dir)
        config = {
            "kind": kind,
            "run_dir": str(run_dir),
            "socket": str(run_dir / "socket"),
            "subset_file": str(subset_file),
            "batches_file": str(self._directory / "batches.pt"),
            "probe": not all((self.options.samples, self.options.rounds, self.options.epochs)),
            "seed": self.options.seed,
            "block_s": self.options.block_s,
            "gpu_rate": self.options.gpu_rate,
            "gpu_trace": self.options.gpu_trace,
            "divert": self.options.divert,
            "sweep": sorted(set(self.options.sweep)),
            "divert_dir": str(diverted),
            "started_ns": diverted.stat().st_ctime_ns,
            **extra,
        }
        if throttle is not None and throttle.method == "pacing":
            (run_dir / "pace").write_bytes(bytes(8))
            config |= {
                "pace_file": str(run_dir / "pace"),
                "pace_bytes_per_s": throttle.bytes_per_s,
            }
        (run_dir / "config.json").write_text(json.dumps(config))
        self._say(f"{kind}: starting the job")
        self._started = timing.clock()
        observer = Observer(
            run_dir / "socket",
            run_dir,
            make_policy=self._policy if kind == "fetch" else None,
            throttle=throttle,
            make_plan=self._make_plan,
            limit_samples=self._limit_samples,
            on_progress=self._say,
        )
        try:
            with cannot_run(self.command), open(run_dir / "job.log", "wb") as log:
                with self._start(run_dir, throttle, log) as job:
                    observer.root_pid = job.pid
                    code = self._wait(job, observer)
        finally:
            observer.close()
        self._passes += observer.passes
        if observer.ordinal is not None:
            self._loader = observer.loaders[observer.ordinal]
        self._check(observer, code, run_dir)
        self._diverted += observer.diverted
        self._timelines.append((kind, observer.timeline))
        self._emulated = observer.emulated or self._emulated
        return observer

    def _start_command(self, run_dir: Path, throttle: ReadThrottle | None, log: Any) -> Job:
        return Job(self.command, run_dir, throttle=throttle, output=log)

    def _wait(self, job: Running, observer: Observer) -> int | None:
        while (code := job.wait(0.1)) is None:
            if observer.done.is_set():
                return job.wait(10.0)  # a job that does not end by itself is ended
            if observer.failure is not None or observer.refused or observer.gone:
                return job.wait(2.0)
            now, patience_s = timing.clock(), self.options.patience_s
            silence_s = now - observer.heard_at
            observer.silent = silence_s > patience_s
            # Messages come, but of files opened or of a loop that does not train.
            observer.aimless = (
                not observer.measuring
                and now - observer.since > patience_s
                and silence_s < patience_s / 4
            )
            if observer.silent or observer.aimless:
                return job.wait(0.0)
        return code

    def _check(self, observer: Observer, code: int | None, run_dir: Path) -> None:
        log = (run_dir / "job.log").read_text(errors="replace")
        if observer.failure is not None:
            raise NotMeasured(f"{observer.failure}", log) from observer.failure
        if observer.refused is not None:
            raise NotMeasured(observer.refused)
        if observer.silent:
            raise NotMeasured(self._silence(), log)
        if observer.aimless:
            raise NotMeasured(self._aimless(observer), log)
        if observer.done.is_set():
            return
        if observer.gone is not None:
            raise NotMeasured(
                f"{observer.gone}: ranks that train together make as many steps. "
                f"{self._steps_advice()}"
            )
        if not observer.hooked:
            if code:
                raise NotMeasured(
                    f"the command failed with exit code {code} before it began{hint(log)}", log
                )
            raise NotMeasured(
                "no Python process of the command loaded the hooks. Does it run python with -I, -E "
                "or -S, or inside a container or on another machine? Profile it there."
            )
        if code:
            raise NotMeasured(f"the training script failed with exit code {code}{hint(log)}", log)
        if not observer.loaders:
            raise NotMeasured(
                "the script ended without iterating a torch DataLoader, so there was nothing to "
                "measure",
                log,
            )
        if observer.ordinal is None:
            raise NotMeasured(
                "the script ended before three training steps were seen (an optimizer step between "
                f"two minibatches of one DataLoader). {self._steps_advice()}",
                log,
            )
        raise NotMeasured(
            f"the script ended before the profile did. {self._steps_advice()}",
            log,
        )

    def _say(self, text: str) -> None:
        self._phase = text
        self._progress(text)

    def _silence(self) -> str:
        return (
            f"nothing has come from the job for {self.options.patience_s:.0f} s, last: "
            f"{self._phase}. It hangs, or waits for something, or its imports or a step take that "
            "long: then wait longer with --patience"
        )

    def _aimless(self, observer: Observer) -> str:
        waited = f"after {self.options.patience_s:.0f} s"
        if not observer.loaders:
            return (
                f"{waited} the job still has not iterated a torch DataLoader. If it reads its data "
                "by other means (arrays, DALI, an iterator of its own), put dsanalyzer.wrap around "
                "them; if it takes that long to begin, wait longer with --patience"
            )
        return (
            f"{waited} of minibatches no torch optimizer has stepped between three of one loader, "
            "so nothing says which loop trains. Where none of torch's optimizers steps, measure "
            "the loop from Python with dsanalyzer.profile(loader, step); where one step takes that "
            "long, wait longer with --patience"
        )

    def _steps_advice(self) -> str:
        planned = self.plan or Plan(
            self.options.samples or MOST_SAMPLES,
            self.options.rounds or MOST_ROUNDS,
            self.options.epochs or MOST_EPOCHS,
            self.options.block_s,
        )
        return (
            f"The profile needs up to {planned.steps(self._batch)} training steps in one run: give "
            "the script more steps or epochs (the profile stops it), or measure less with "
            "--budget, --samples, --rounds and --block."
        )

    def _make_plan(self, message: dict[str, Any]) -> Plan:
        """Samples, rounds and epochs within the budget, by what the job told of its loader."""
        options = self.options
        self._batch = message["batch"]
        speeds = Speeds(
            loader=message["loader_rate"],
            sweep=tuple(n / max(1, message["workers"]) for n in options.sweep),
            step=options.gpu_rate or message["step_rate"],
            # Nothing is known of the items yet: 110 KB is what photographs are like.
            storage=(options.storage_bytes_per_s or 0.0) / TYPICAL_ITEM_BYTES,
            hits=hit_rate(options.policy, options.cached_fraction),
            start_s=timing.clock() - self._started,
        )
        fewest_s = plan.INGESTION_STEPS[0] * self._batch / speeds.step if speeds.step else 0.0
        self._speeds, self._window = speeds, message["window"]
        self._size = message.get("size", self._batch)
        self.plan = plan.make(
            options.budget_s,
            max(options.block_s, fewest_s),
            plan.Asked(options.samples, options.rounds, options.epochs),
            speeds,
            self._window,
            message["available"] or plan.MOST_SAMPLES,
        )
        if speeds.loader:
            self._progress.total_s = self.plan.seconds(speeds)
        self._say(
            f"{self.plan.samples} samples, {self.plan.rounds} rounds, {self.plan.epochs} epochs"
        )
        return self.plan

    def _plan_anew(self, samples: int, storage: float, *, chosen: bool) -> None:
        """More is known: the storage, in samples/s. Fewer epochs, and samples unless `chosen`."""
        assert self.plan is not None
        speeds = self._speeds = replace(self._speeds, storage=storage)
        fixed = samples if chosen else self.options.samples
        asked = plan.Asked(fixed, self.plan.rounds, self.options.epochs)
        fits = plan.make(
            self.options.budget_s, self.plan.block_s, asked, speeds, self._window, samples
        )
        self.plan = replace(
            self.plan,
            samples=min(samples, fits.samples),
            epochs=min(self.plan.epochs, fits.epochs),
        )
        self._progress.total_s = self.plan.seconds(speeds)

    # -- phases the tool does itself --------------------------------------------------------------

    def _subset(self) -> dict[str, Any]:
        subset: dict[str, Any] = json.loads((self._directory / "rates" / "subset.json").read_text())
        return subset

    def _policy(self, sizes: dict[str, int]) -> PageCachePolicy:
        budget = self.options.cached_fraction * sum(sizes.values())
        return PageCachePolicy(sizes, budget, self.options.policy)

    def _limit_samples(self, chosen: dict[str, Any]) -> int:
        """As many of the chosen samples as memory can hold beside the job."""
        count = found = len(chosen["indices"])
        if self.options.storage_bytes_per_s is not None and count:
            read = sum(map(residency.device_bytes, chosen["sizes"].values())) / count
            follows = "batches" in chosen  # a stream gives the samples it was seen to give
            self._plan_anew(count, self.options.storage_bytes_per_s / read, chosen=follows)
            assert self.plan is not None
            if not follows:
                count = self.plan.samples // self._batch * self._batch or count
        total = sum(chosen["sizes"].values()) * count / max(1, found)
        available = psutil.virtual_memory().available
        room = MEMORY_SHARE * min(available, memory_limit() or available)
        if total <= room or not count:
            return count
        raise NotMeasured(
            f"the {count} samples to measure on hold {total / 2**30:.1f} GiB, more than half of "
            f"the memory available. Choose fewer: --samples {int(count * room / total)}."
        )

    def _storage(
        self, subset: dict[str, Any], loader: dict[str, Any], throttle: ReadThrottle | None
    ) -> dict[str, Any]:
        self._say("storage: reading items without the job")
        depths = sorted({1, ranks.readers(loader), 16})
        paths = list(subset["sizes"])
        measured = self._read(paths, depths, STORAGE_LIMIT_S, throttle)
        if throttle is not None:
            for row in measured["cold"]:
                _hold(row, throttle)
            # What a read takes beside the wait that the limit makes for it.
            (alone,) = self._read(paths[:LATENCY_ITEMS], [1], STORAGE_LIMIT_S / 4, None)["cold"]
            measured["latency_s"] = 1 / alone["samples_per_s"]
        # The reader counts files; a sample may be several, or several may share one.
        per_sample = len(subset["sizes"]) / len(subset["indices"])
        for row in [*measured["cold"], measured["warm"]]:
            row["samples_per_s"] /= per_sample
            row["slices"] = [rate / per_sample for rate in row["slices"]]
        if "latency_s" in measured:
            measured["latency_s"] *= per_sample
        depth = ranks.readers(loader)
        cold = next(row for row in measured["cold"] if row["queue_depth"] == depth)
        self._plan_anew(len(subset["indices"]), cold["samples_per_s"], chosen=True)
        return measured

    def _read(
        self, paths: list[str], depths: list[int], limit_s: float, throttle: ReadThrottle | None
    ) -> dict[str, Any]:
        request = self._directory / "storage.json"
        asked = {"paths": paths, "depths": depths, "limit_s": limit_s, "seed": self.options.seed}
        request.write_text(json.dumps(asked))
        done = subprocess.run(
            [sys.executable, "-m", "dsanalyzer.measure.storage", str(request)],
            capture_output=True,
            text=True,
            preexec_fn=bound_to_tool(throttle),
        )
        if done.returncode:
            raise NotMeasured("reading items from storage failed", done.stderr)
        measured: dict[str, Any] = json.loads(done.stdout)
        return measured
