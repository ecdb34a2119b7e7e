"""Runs the phases inside the job's own training loop.

The job sees one long epoch. Between two of its steps the conductor decides where the next minibatch
comes from: recorded minibatches (ingestion), the same out of workers (delivery), or the loader's
own workers over a chosen subset (prep: resident in memory; fetch: cold, under a cache policy). Each
pass over the subset opens the loader anew, as an epoch does, and is timed whole: under LRU, hits
depend on the position in the epoch, so dropping its first minibatches would bias the pass.

A job is run twice: once for ingestion and prep ("rates"), once for fetch, so that a cache the
loader itself holds is empty when the cold pass begins.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from dsanalyzer.hooks import delivery, streams, subset, training
from dsanalyzer.hooks.wire import Connection
from dsanalyzer.measure import objects, timing
from dsanalyzer.measure.plan import INGESTION_STEPS, drains
from dsanalyzer.ranks import Rank, ingestion_steps
from dsanalyzer.wrapping import Wrapped

LEARN_STEPS = 3  # optimizer steps seen before a loader counts as the training loader
RECORDED_BATCHES = 4
PROBED_BATCHES = 3  # per worker, to see how fast the loader is
LEAD_IN_STEPS = 6
ALIVE_S = 1.0  # the tool hears of steps so often

_NO_MORE = object()
OpenLoader = Callable[[], Iterator[Any]]


class Complete(SystemExit):
    """The profile is done: end the job as sys.exit(0) would."""


class Conductor:
    """One per process; lives across the job's epochs, breaks and validation loops."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self.pid = os.getpid()
        self._control = Connection(config["socket"], "control")
        self._events = Connection(config["socket"], "events")
        self._told_at = 0.0  # that the job is alive
        self._seen: list[Any] = []  # loaders in the order in which they were first iterated
        self._learned: dict[int, int] = {}  # loader -> training steps seen
        self._recorded: list[Any] = []
        self._lengths: list[int] = []  # samples of each
        self._size: int | None = config.get("size")  # samples of a minibatch, of every rank alike
        self._asking: set[int] = set()  # loaders asked for a minibatch just now
        self._phases: Iterator[Any] | None = None
        self._training: Any = None
        self._batches: int | None = None  # of a pass, where the loader takes no indices
        self._gap_s = 0.0  # time the job spent outside its training loop, to leave out
        self._left_at: float | None = None
        self._rank: Rank | None = None  # once a loader is iterated
        # Steps of an ingestion block, where ranks have to make as many.
        self._steps: int | None = None
        self._step_s: float | None = None  # the shortest while learning
        if (step_s := config.get("step_s")) is not None:
            self._steps = ingestion_steps(step_s, config["block_s"])

    def _ask(self, op: str, **facts: Any) -> dict[str, Any]:
        rank = self._rank or Rank()
        return self._control.ask({"op": op, "rank": rank.number, "ranks": rank.count, **facts})

    def alive(self) -> None:
        """A step was made: the job does not hang."""
        now = timing.clock()
        if now - self._told_at >= ALIVE_S:
            self._told_at = now
            self._events.event({"op": "alive"})

    def observe(self, loader: Any, open_loader: OpenLoader) -> Iterator[Any]:
        """The iterator behind one `iter(loader)` of the job."""
        if self._rank is None:
            self._rank = Rank.of_this_process()
            self._check_rank(self._rank)
        training.watch()
        if not any(loader is known for known in self._seen):
            self._seen.append(loader)
            self._ask("loader", loader=subset.describe(loader, self._rank.count))
        if self._phases is None and self._is_known_training_loader(loader):
            self._begin(loader, open_loader)
        if loader is self._training:
            return self._perform()
        return self._learn(loader, open_loader)

    def _check_rank(self, rank: Rank) -> None:
        if rank.count > rank.here:
            self._refuse(
                f"the job has {rank.count} ranks, {rank.here} of them on this machine: those of "
                "several machines are not measured together. Profile it on one machine (torchrun "
                f"--standalone --nproc-per-node={rank.here}), and ask `dsanalyzer whatif --servers`"
            )
        if rank.count > 1 and self._config["gpu_rate"]:
            self._refuse(
                f"--gpu-rate emulates one accelerator and the job has {rank.count} ranks. Measure "
                "them as they are, without it; or profile one rank alone: run the script itself, "
                "without the launcher, on its share of the cores (taskset -c 0-7)"
            )

    def _refuse(self, why: str) -> None:
        self._ask("refuse", why=why)
        raise SystemExit(2)

    def _refuse_second(self, loader: Any) -> None:
        """Waits for a second loader would pass for compute."""
        if self._learned[id(loader)] < LEARN_STEPS:
            return
        first, second = (self._seen.index(one) + 1 for one in (self._training, loader))
        self._refuse(
            f"the job trains from two loaders at once (the {_ordinal(first)} and the "
            f"{_ordinal(second)} it iterated), and a wait for one cannot be told from compute on "
            "the other. Profile it with one of them replaced by recorded minibatches, or join the "
            "data sets (torch.utils.data.StackDataset, ConcatDataset)"
        )

    def _is_known_training_loader(self, loader: Any) -> bool:
        ordinal = self._config.get("loader_ordinal")
        return ordinal is not None and self._seen[ordinal : ordinal + 1] == [loader]

    def _learn(self, loader: Any, open_loader: OpenLoader) -> Iterator[Any]:
        """The loader's own minibatches, until training steps show what it is for."""
        from dsanalyzer.hooks.dataloader import stream_of

        if id(loader) in self._asking:  # by a subclass's __iter__ that kept an iterator of its own
            yield from open_loader()
            return
        lengths: deque[int] | None = None
        if not streams.is_stream(loader) and loader.batch_sampler is not None:
            lengths = stream_of(loader).lengths = deque()
        batches = open_loader()
        while True:  # a for loop would keep the iterator, and so its workers, alive below
            self._asking.add(id(loader))
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._asking.discard(id(loader))
            samples = (lengths.popleft() if lengths else 0) or subset.samples_in(batch)
            before, given = training.steps(), timing.clock()
            self.alive()
            training.delivered(samples)
            yield batch
            if training.steps() == before:
                continue
            step_s = timing.clock() - given
            self._step_s = step_s if self._step_s is None else min(self._step_s, step_s)
            self._learned[id(loader)] = self._learned.get(id(loader), 0) + 1
            if self._training is not None:
                self._refuse_second(loader)
            if self._config["kind"] != "rates":
                continue
            self._recorded = [*self._recorded[-(RECORDED_BATCHES - 1) :], batch]
            self._lengths = [*self._lengths[-(RECORDED_BATCHES - 1) :], samples]
            if self._learned[id(loader)] >= LEARN_STEPS:
                del batches  # ends the workers of a non-persistent loader
                if lengths is not None:
                    stream_of(loader).lengths = None
                self._begin(loader, open_loader)
                yield from self._perform()
                return

    def _begin(self, loader: Any, open_loader: OpenLoader) -> None:
        self._training = loader
        training.quiet_schedulers()
        self._phases = (
            self._rates_run(loader, open_loader)
            if self._config["kind"] == "rates"
            else self._fetch_run(loader, open_loader)
        )

    def _perform(self) -> Iterator[Any]:
        """Phases go on where an earlier epoch of the job left them."""
        assert self._phases is not None
        if self._left_at is not None:
            self._gap_s += timing.clock() - self._left_at
            self._left_at = None
        try:
            yield from _Shared(self._phases)
        except GeneratorExit:
            self._left_at = timing.clock()
            raise

    # -- the two runs -------------------------------------------------------------------------

    def _rates_run(self, loader: Any, open_loader: OpenLoader) -> Iterator[Any]:
        assert self._rank is not None
        rank, plan = self._rank, self._plan(loader, open_loader)
        self._events.event({"op": "looking"})
        if not streams.is_stream(loader):
            with objects.keeping(self._config["objects_dir"]):
                chosen = subset.choose(loader, plan["size"], plan["samples"], self.alive)
        elif rank.count == 1:
            with objects.keeping(self._config["objects_dir"]):
                chosen = self._follow(loader, open_loader, plan["samples"])
        else:
            self._refuse(
                "the job's ranks read streams (an IterableDataset, or what dsanalyzer.wrap was "
                "given), whose parts nobody can make equally long. Profile one rank alone: run the "
                "script itself, without the launcher, on its share of the cores (taskset -c 0-7)"
            )
        with open(rank.path(self._config["subset_file"]), "w") as file:
            json.dump(chosen, file)
        # Out of what workers share with this process: else ingestion differs from the second run's,
        # whose minibatches come from a file, by what reading small pages costs.
        self._recorded = [subset.private(batch) for batch in self._recorded]
        self._save_recorded()
        answer = self._ask(
            "subset",
            ordinal=self._seen.index(loader),
            emulated=training.emulated(),
            sample_shape=subset.sample_shape(self._recorded[0]),
            batch_samples=plan["size"],
        )
        indices = chosen["indices"][: answer["samples"]]
        self._batches = chosen.get("batches")
        training.settle()
        yield from self._warm_up()
        most = INGESTION_STEPS[1] if self._steps is None else self._steps
        pinned = subset.pinned(self._recorded)
        beside = bool(indices) and loader.num_workers > 0  # else prep is never beside compute
        for number in range(plan["rounds"]):
            yield from self._ingestion(number)
            if pinned is not None:
                yield from self._block("copy", number, itertools.cycle(pinned))
            # Opened anew in each round: beside its idle workers prep passes were a fifth slower.
            if (delivered := delivery.opened(loader, self._recorded, most)) is not None:
                yield from self._block("delivery", number, delivered)
                del delivered
            if indices:
                yield from self._loader_pass("prep", number, loader, open_loader, indices)
            if beside:
                cores = sorted(os.sched_getaffinity(0))
                self._ask("begin", phase="interference", cores=cores)
                yield from self._block("interference", number, self._from_memory())
        if indices:
            self._drain(loader, open_loader, indices, plan["rounds"])
            self._sweep(loader, open_loader, indices)
        self._finish()

    def _fetch_run(self, loader: Any, open_loader: OpenLoader) -> Iterator[Any]:
        import torch

        assert self._rank is not None
        with open(self._rank.path(self._config["subset_file"])) as file:
            chosen = json.load(file)
        indices = chosen["indices"][: self._config["samples"] // self._rank.count]
        self._batches = chosen.get("batches")
        try:
            if self._batches is None:
                subset.check_same_files(loader, indices, chosen["files"])
        except subset.NotMeasurable as reason:
            self._refuse(str(reason))
        recorded = self._rank.path(self._config["batches_file"])
        self._recorded, self._lengths = torch.load(recorded, weights_only=False)
        for step in range(LEAD_IN_STEPS):  # the model's first real steps touch no data file
            training.delivered(self._lengths[step % len(self._lengths)])
            yield self._recorded[step % len(self._recorded)]
        training.settle()
        for epoch in range(self._config["epochs"]):
            yield from self._loader_pass("fetch", epoch, loader, open_loader, indices)
            yield from self._ingestion(epoch)
        self._finish()

    def _plan(self, loader: Any, open_loader: OpenLoader) -> dict[str, Any]:
        """How much to measure, by what the loader delivers in a short probe."""
        batch = self._configured(loader)
        window = max(1, loader.num_workers) * (loader.prefetch_factor or 1) * batch
        rate = self._probe(loader, open_loader, batch) if self._config["probe"] else 0.0
        available = None if streams.is_stream(loader) else subset.available(loader)
        plan = self._ask(
            "plan",
            loader_rate=rate,
            window=window,
            batch=batch,
            available=available,
            workers=loader.num_workers,
            step_rate=batch / self._step_s if self._step_s else 0.0,
        )
        self._size = plan["size"]
        return plan

    def _probe(self, loader: Any, open_loader: OpenLoader, batch: int) -> float:
        """Samples/s of a few minibatches, once the workers have started."""
        workers = max(1, loader.num_workers)
        batches = open_loader()
        started = timing.clock()
        count = 0
        for number, _ in zip(range((1 + PROBED_BATCHES) * workers), batches, strict=False):
            if number < workers:  # while workers start
                started = timing.clock()
            else:
                count += batch
        lasted = timing.clock() - started
        del batches
        _begin_anew(loader)
        return count / lasted if count and lasted > 0 else 0.0

    def _follow(self, loader: Any, open_loader: OpenLoader, wanted: int) -> dict[str, Any]:
        """Goes once through what a pass over a stream will be; the tool sees the files opened."""
        assert self._size is not None
        self._batches = max(1, wanted // self._size)
        order, batches, _ = self._open_pass("follow", 0, loader, open_loader, [])
        samples = count = 0
        for _, batch in zip(order, batches, strict=False):
            samples += subset.samples_in(batch)
            count += 1
        self._close_pass(loader, batches)
        self._ask("end", phase="follow")
        opened = f"{self._config['run_dir']}/opened.json"
        return streams.chosen(samples, count, opened, self._config["objects_dir"])

    def _configured(self, loader: Any) -> int:
        """Samples of a minibatch: as configured, else the mean of those that were recorded."""
        mean = round(sum(self._lengths) / len(self._lengths))
        return subset.batch_size(loader) or max(1, mean)

    def _finish(self) -> None:
        self._ask("done", emulated=training.emulated())
        raise Complete(0)

    def _save_recorded(self) -> None:
        import torch

        # The diverted torch.save would list this as a checkpoint of the job.
        save = getattr(torch.save, "_dsanalyzer_original", torch.save)
        assert self._rank is not None
        save((self._recorded, self._lengths), self._rank.path(self._config["batches_file"]))

    # -- passes -------------------------------------------------------------------------------

    def _warm_up(self) -> Iterator[Any]:
        """A block that does not count; ranks learn from it how many steps they make in others."""
        if self._rank is None or self._rank.count == 1:
            yield from self._steps_of(_Recorder(self), self._from_memory())
            return
        self._steps = INGESTION_STEPS[0]
        recorder = _Recorder(self)
        yield from self._steps_of(recorder, self._from_memory())
        step_s = sum(recorder.steps_s) / len(recorder.steps_s)
        slowest_s = self._ask("steps", step_s=step_s)["step_s"]
        self._steps = ingestion_steps(slowest_s, self._config["block_s"])

    def _ingestion(self, number: int) -> Iterator[Any]:
        """Recorded minibatches from memory, the loader shut down."""
        yield from self._block("ingestion", number, self._from_memory())

    def _block(self, phase: str, number: int, batches: Iterator[Any]) -> Iterator[Any]:
        recorder = _Recorder(self)
        yield from self._steps_of(recorder, batches)
        self._report(phase, number, recorder)

    def _from_memory(self) -> Iterator[Any]:
        return itertools.cycle([subset.on_device(batch) for batch in self._recorded])

    def _steps_of(self, recorder: _Recorder, batches: Iterator[Any]) -> Iterator[Any]:
        """Steps for as long as an ingestion block lasts."""
        started = timing.clock()
        lengths = itertools.cycle(self._lengths)
        fewest, most = INGESTION_STEPS if self._steps is None else (self._steps, self._steps)
        for step in range(most):
            if step >= fewest and timing.clock() - started > self._config["block_s"]:
                break
            yield from recorder.step_from(batches, next(lengths))

    def _loader_pass(
        self, phase: str, number: int, loader: Any, open_loader: OpenLoader, indices: list[int]
    ) -> Iterator[Any]:
        """One epoch of the subset through the job's own loader, stepping as the job does."""
        order, batches, start_s = self._open_pass(phase, number, loader, open_loader, indices)
        recorder = _Recorder(self, start_s)
        for request in order:
            if not (yield from recorder.step_from(batches, self._asked_for(request))):
                break  # a stream that ended earlier than before
        self._report(phase, number, recorder)
        self._close_pass(loader, batches)

    def _drain(self, loader: Any, open_loader: OpenLoader, indices: list[int], rounds: int) -> None:
        """The loader alone, nobody training: the prep rate itself."""
        for number in range(drains(rounds)):
            self._drain_once("drain", number, loader, open_loader, indices)

    def _sweep(self, loader: Any, open_loader: OpenLoader, indices: list[int]) -> None:
        """The same with other numbers of workers, where torch's loader has any."""
        if isinstance(loader, Wrapped) or streams.is_stream(loader) or loader.num_workers == 0:
            return
        own, kept = loader.num_workers, getattr(loader, "_iterator", None)
        for workers in self._config.get("sweep") or ():
            if workers == own:
                continue
            loader.num_workers, loader._iterator = workers, None  # else persistent ones go on
            try:
                self._drain_once("sweep", workers, loader, open_loader, indices)
            finally:
                loader.num_workers, loader._iterator = own, kept

    def _drain_once(
        self, phase: str, number: int, loader: Any, open_loader: OpenLoader, indices: list[int]
    ) -> None:
        order, batches, start_s = self._open_pass(phase, number, loader, open_loader, indices)
        recorder = _Recorder(self, start_s)
        for request in order:
            for _ in recorder.step_from(batches, self._asked_for(request)):
                pass
        self._report(phase, number, recorder)
        self._close_pass(loader, batches)

    def _asked_for(self, request: list[int]) -> int | None:
        """Samples of a minibatch by its indices; None of a stream, which gives what it has."""
        return None if self._batches is not None else len(request)

    def _open_pass(
        self, phase: str, number: int, loader: Any, open_loader: OpenLoader, indices: list[int]
    ) -> tuple[list[list[int]], Iterator[Any], float]:
        """A fresh permutation of the subset in batches, its iterator, and how long workers took.

        Single samples lead in before the clock starts: they arrive when their workers are up.
        An epoch of the whole data set pays that once; scaled up from a subset it would count often.
        """
        from dsanalyzer.hooks.dataloader import stream_of

        size = self._size
        assert size is not None
        if self._batches is not None:
            cut = streams.requests(loader, size, self._batches)
            single = streams.single(loader)
        else:
            order = list(indices)
            random.Random(f"{self._config['seed']} {phase} {number}").shuffle(order)
            cut = [order[i : i + size] for i in range(0, len(order), size)]
            single = [order[-1]]
        # As many as are handed out at once: no worker has a real minibatch before the clock starts.
        lead_in = [single] * max(1, loader.num_workers * (loader.prefetch_factor or 1))
        self._ask("begin", phase=phase)
        if not isinstance(loader, Wrapped):
            stream_of(loader).batches, stream_of(loader).asked = lead_in + cut, False
        started = timing.clock()
        batches = open_loader()
        for _ in lead_in:
            next(batches, None)
        started_s = timing.clock() - started
        if not (isinstance(loader, Wrapped) or stream_of(loader).asked):
            self._refuse(
                f"the job's {type(loader).__name__} goes on with an iterator it has kept when it "
                "is iterated anew (as timm's MultiEpochsDataLoader does), so the tool cannot say "
                "what it reads. Profile the job with torch's DataLoader(persistent_workers=True), "
                "which keeps its workers as well"
            )
        if isinstance(loader, Wrapped):
            batches = streams.Taken(batches, len(cut))
        return cut, batches, started_s

    def _close_pass(self, loader: Any, batches: Iterator[Any]) -> None:
        from dsanalyzer.hooks.dataloader import stream_of

        for _ in batches:  # the loader's own end of epoch
            pass
        if isinstance(loader, Wrapped):
            _begin_anew(loader)
            return
        stream_of(loader).batches = None

    def _report(self, phase: str, number: int, recorder: _Recorder) -> None:
        training.synchronize()
        recorder.end()
        record = recorder.record() | {"phase": phase, "round": number}
        assert self._rank is not None
        name = self._rank.path(f"pass-{phase}-{number}.json")
        with open(f"{self._config['run_dir']}/{name}", "w") as file:
            json.dump(record, file)
        self._ask("end", phase=phase, record=name)

    def take_gap_s(self) -> float:
        """Time spent outside the training loop since the last call."""
        gap, self._gap_s = self._gap_s, 0.0
        return gap


class _Shared:
    """Iterates without closing: a `break` in the job must not end the phases."""

    def __init__(self, phases: Iterator[Any]) -> None:
        self._phases = phases

    def __iter__(self) -> _Shared:
        return self

    def __next__(self) -> Any:
        return next(self._phases)


class _Recorder:
    """Times the steps of one pass."""

    def __init__(self, conductor: Conductor, start_s: float = 0.0) -> None:
        training.synchronize()  # what led in is no part of it
        self._conductor = conductor
        self.samples = 0
        self.start_s = start_s
        self._cpu_before_s = timing.process_clock()
        self.at_s: list[float] = []  # when each minibatch was asked for
        self.waits_s: list[float] = []
        self.steps_s: list[float] = []
        self._mark = timing.clock()
        conductor.take_gap_s()

    def step_from(self, batches: Iterator[Any], samples: int | None) -> Generator[Any, None, bool]:
        """One step on a minibatch of so many samples; False where there are no more of them."""
        asked = timing.clock()
        batch = next(batches, _NO_MORE)
        if batch is _NO_MORE:
            return False
        yield from self._deliver(batch, asked, samples)
        return True

    def _deliver(self, batch: Any, asked: float, samples: int | None) -> Iterator[Any]:
        self.waits_s.append(timing.clock() - asked)
        self.at_s.append(asked)
        samples = subset.samples_in(batch) if samples is None else samples
        self.samples += samples
        self._conductor.alive()
        training.delivered(samples)
        yield batch
        now = timing.clock()
        self.steps_s.append(now - self._mark - self._conductor.take_gap_s())
        self._mark = now

    def end(self) -> None:
        """The device has drained: what it still owed belongs to the last step."""
        now = timing.clock()
        if self.steps_s:
            self.steps_s[-1] += now - self._mark
        self._mark = now

    def record(self) -> dict[str, Any]:
        return {
            "at_s": self.at_s,
            "samples": self.samples,
            "wall_s": sum(self.steps_s),
            "steps_s": self.steps_s,
            "waits_s": self.waits_s,
            "start_s": self.start_s,
            "cpu_s": timing.process_clock() - self._cpu_before_s,
        }


def _begin_anew(loader: Any) -> None:
    """DALI's iterators start at the beginning only once they are told to."""
    if isinstance(loader, Wrapped) and hasattr(loader.dataset, "reset"):
        loader.dataset.reset()


def _ordinal(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
