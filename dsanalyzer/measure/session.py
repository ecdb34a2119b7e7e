"""Measures one training command: a run for ingestion and prep, storage alone, a run for fetch."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psutil

from coordl.cgroups import memory_limit
from dsanalyzer import ranks
from dsanalyzer.job import Job, Running
from dsanalyzer.measure import alone, objects, plan, residency, timing
from dsanalyzer.measure.mounts import mount_of
from dsanalyzer.measure.not_measured import NotMeasured, cannot_run, check
from dsanalyzer.measure.options import Options
from dsanalyzer.measure.plan import MOST_EPOCHS, MOST_ROUNDS, MOST_SAMPLES, Plan, Speeds
from dsanalyzer.measure.policy import PageCachePolicy
from dsanalyzer.measure.throttle import ReadThrottle
from dsanalyzer.observer import Observer
from dsanalyzer.predict.model import hit_rate

MEMORY_SHARE = 0.5  # of the available memory that the measured subset may occupy
TYPICAL_ITEM_BYTES = 110_000


class Progress(Protocol):
    """Called with the phase that begins; `total_s` is what the profile should take, once known."""

    total_s: float

    def __call__(self, text: str) -> None: ...


# (folder of the run, throttle, file for the output) -> the running job
Start = Callable[[Path, ReadThrottle | None, Any], Running]


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
        self._objects_dir = directory / "objects"
        self._progress = progress
        self._phase = ""
        self._passes: list[dict[str, Any]] = []
        self._diverted: list[str] = []
        self._timelines: list[tuple[str, list[dict[str, Any]]]] = []
        self._emulated: str | None = None
        self._loader: dict[str, Any] | None = None  # the training loader, once it is known
        self.plan: Plan | None = None
        self._batch = 1
        self._began_ns = 0

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
        self._objects_dir.mkdir()
        rates = self._run("rates", {})
        assert rates.ordinal is not None
        subset = self._subset()
        if not subset["indices"]:
            raise NotMeasured(subset["why"])
        method = None
        with contextlib.ExitStack() as stack:
            throttle = None
            first = next(iter(subset["sizes"]))
            if self.options.storage_bytes_per_s is not None:
                throttle = stack.enter_context(
                    ReadThrottle(first, self.options.storage_bytes_per_s)
                )
                method = throttle.method
                alone.check_pacing(first, method)
            self._say("storage: reading items without the job")
            readers = ranks.readers(rates.loaders[rates.ordinal])
            storage = alone.measure(self._directory, subset, readers, throttle, self.options.seed)
            cold = next(row for row in storage["cold"] if row["queue_depth"] == readers)
            self._plan_anew(len(subset["indices"]), cold["samples_per_s"], chosen=True)
            assert self.plan is not None
            fetch = {
                "loader_ordinal": rates.ordinal,
                "step_s": rates.step_s,
                "size": self._size,
                "epochs": self.plan.epochs,
                "samples": len(subset["indices"]),
                "served": mount_of(first).served,
            }
            self._run("fetch", fetch, throttle)
            subset["sizes"] = objects.named(subset["sizes"])
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
        # What is older is not the job's to change; what its first run made, its second may.
        self._began_ns = self._began_ns or diverted.stat().st_ctime_ns
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
            "objects_dir": str(self._objects_dir),
            "started_ns": self._began_ns,
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
                    said = os.fstat(log.fileno()).st_size
                # What it says to being ended explains something only where it hung: at what.
                text = (run_dir / "job.log").read_bytes()[: None if observer.silent else said]
        finally:
            observer.close()
        self._passes += observer.passes
        if observer.ordinal is not None:
            self._loader = observer.loaders[observer.ordinal]
        check(
            observer,
            code,
            text.decode(errors="replace"),
            phase=self._phase,
            patience_s=self.options.patience_s,
            steps=self._steps(),
        )
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

    def _say(self, text: str) -> None:
        self._phase = text
        self._progress(text)

    def _steps(self) -> int:
        """Of training that the profile needs in one run, at most."""
        planned = self.plan or Plan(
            self.options.samples or MOST_SAMPLES,
            self.options.rounds or MOST_ROUNDS,
            self.options.epochs or MOST_EPOCHS,
            self.options.block_s,
        )
        return planned.steps(self._batch)

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

    # -- what it measures on --------------------------------------------------------------------

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
            alone.check_can_be_held(next(iter(chosen["sizes"])))
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
