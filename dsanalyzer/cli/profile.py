"""dsanalyzer profile: measure a training command."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dsanalyzer import builtin, quantity
from dsanalyzer import trace as traces
from dsanalyzer.cli.given import given, maybe
from dsanalyzer.job import terminate_as_interrupt
from dsanalyzer.measure import timing
from dsanalyzer.measure.not_measured import NotMeasured
from dsanalyzer.measure.options import Options
from dsanalyzer.measure.run_directory import run_directory
from dsanalyzer.measure.session import Session

LOG_LINES = 40  # of the job's own output, shown when it failed
err = Console(stderr=True)


def profile(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="The training command, after --.", metavar="-- COMMAND..."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a command: pictures, recordings or texts, for a job of our own."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help=f"Of that job: {', '.join(builtin.WORKLOADS)}.")
    ] = "resnet18",
    batch_size: Annotated[int, typer.Option(help="Of that job.", min=1)] = 64,
    workers: Annotated[int, typer.Option(help="Of that job.", min=0)] = 4,
    output: Annotated[Path, typer.Option("--output", "-o", help="Result file (JSON).")] = Path(
        "dsanalyzer.json"
    ),
    html: Annotated[
        Path | None, typer.Option(help="Also write the report as one HTML page.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Also write what happened when, as a Chrome trace (for ui.perfetto.dev)."
        ),
    ] = None,
    cached: Annotated[
        str, typer.Option(help="Share of the data set the page cache may hold: 65% or 0.65.")
    ] = "50%",
    policy: Annotated[
        str, typer.Option(help="How that cache behaves: lru or never-evict.")
    ] = "lru",
    storage: Annotated[
        str | None,
        typer.Option(help="Slow storage down to this rate: 15MB/s, hdd, sata-ssd, nvme."),
    ] = None,
    gpu_rate: Annotated[
        float | None,
        typer.Option(help="Emulate an accelerator of N samples/s in place of the model's compute."),
    ] = None,
    gpu_trace: Annotated[
        Path | None,
        typer.Option(help="Emulate one with recorded step times (JSON: batch_size, steps_s)."),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Time it should take: 3m, 90s. Decides the next three.")
    ] = "3m",
    samples: Annotated[int | None, typer.Option(help="Samples to measure on.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Interleaved ingestion and prep blocks.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Fetch passes; the first is cold.")] = None,
    block: Annotated[float, typer.Option(help="Seconds of each ingestion block.")] = 2.0,
    sweep: Annotated[
        str, typer.Option(help="Measure prep with these numbers of workers too: 1,2,4,8.")
    ] = "",
    threshold: Annotated[
        str, typer.Option(help="Share of the epoch from which a stall is of relevance.")
    ] = "2%",
    patience: Annotated[
        str, typer.Option(help="Silence after which the job is taken to hang, and ended.")
    ] = "10m",
    seed: Annotated[int, typer.Option(help="Seed of sample order and bootstrap.")] = 0,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Let the job write its checkpoints.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the outputs.")] = False,
) -> None:
    """Measure how much of each epoch an unmodified training command stalls, and on what.

    The command runs twice, each time until its profile is complete: once for ingestion (G) and prep
    (P), once for fetch from cold storage under the page cache described by --cached and --policy.
    Checkpoints it would write are diverted and listed.
    """
    try:
        steps = None if gpu_trace is None else traces.load(gpu_trace)
        if steps is not None and gpu_rate is not None:
            raise ValueError("--gpu-trace says how fast the accelerator is; leave out --gpu-rate")
        _refuse_of_other_job(context, data)
        job = _job(command, data, model, batch_size, workers, emulated=bool(gpu_rate or steps))
        options = Options(
            policy=policy,
            cached_fraction=given("--cached", quantity.fraction, cached),
            storage_bytes_per_s=maybe("--storage", quantity.bytes_per_s, storage),
            gpu_rate=steps.rate if steps else gpu_rate,
            gpu_trace=tuple(s / steps.batch_size for s in steps.steps_s) if steps else (),
            budget_s=given("--budget", quantity.duration_s, budget),
            samples=samples,
            rounds=rounds,
            block_s=block,
            epochs=epochs,
            seed=seed,
            divert=not keep_checkpoints,
            sweep=given("--sweep", quantity.counts, sweep),
            threshold=given("--threshold", quantity.fraction, threshold),
            patience_s=given("--patience", quantity.duration_s, patience),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    outputs = [path for path in (output, html, trace) if path is not None]
    refuse_to_overwrite(outputs, force)
    try:
        err.print(_before_start(options), highlight=False)
        with (
            terminate_as_interrupt(),
            run_directory() as directory,
            progress_of(options.budget_s) as progress,
        ):
            measured = Session(job, options, directory, progress).measure()
    except NotMeasured as error:
        _fail(error, job, options, output)
    except KeyboardInterrupt:
        err.print("Interrupted; the job and everything it made were ended.")
        raise typer.Exit(130) from None
    from dsanalyzer import result as results
    from dsanalyzer.report import terminal

    try:
        result = results.build(job, options, measured)
    except NotMeasured as error:
        _fail(error, job, options, output)
    output.write_text(json.dumps(result, indent=1))
    terminal.summary(result, Console(), path=str(output))
    if html is not None:
        from dsanalyzer.report import page

        page.write_page(result, html)
    if trace is not None:
        from dsanalyzer.report import chrome

        chrome.write(measured.timelines, result, trace)
    for path in outputs:
        print(path)


def _refuse_of_other_job(context: typer.Context, data: Path | None) -> None:
    """What the built-in job takes says nothing to a script."""
    for name in ("model", "batch_size", "workers"):
        source = context.get_parameter_source(name)
        if data is None and source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option} is of the built-in job (--data DIR); a script has its own: change it "
                "there, or ask `dsanalyzer whatif`"
            )


def _job(
    command: list[str] | None,
    data: Path | None,
    model: str,
    batch_size: int,
    workers: int,
    *,
    emulated: bool,
) -> list[str]:
    """The command to profile: the user's, or that of the built-in job.

    Raises:
        ValueError: neither, both, or a job that cannot be made.
    """
    if data is None:
        if not command:
            raise ValueError(
                "no training command: write it after --, or name a folder with --data DIR"
            )
        return list(command)
    if command:
        raise ValueError("--data is a job of its own; leave out the command, or --data")
    builtin.check(data, model, emulated)
    return [
        *(sys.executable, "-m", "dsanalyzer.builtin", "--data", str(data), "--model", model),
        *("--batch-size", str(batch_size), "--workers", str(workers)),
    ]


def refuse_to_overwrite(outputs: list[Path], force: bool) -> None:
    """Exit 2 before any work where an output exists already or cannot be written."""
    for position, path in enumerate(outputs):
        folder = path.absolute().parent
        if path.is_dir():
            problem = f"{path} is a folder; name a file in it."
        elif path in outputs[:position]:
            problem = f"{path} is named for two outputs; give each its own."
        elif path.exists() and not force:
            problem = f"{path} exists; choose another name or add --force."
        elif not folder.is_dir():
            problem = f"{folder} is not a folder; make it first."
        elif not _can_write(folder):
            problem = f"{folder} cannot be written to; choose another folder."
        else:
            continue
        err.print(problem, highlight=False)
        raise typer.Exit(2)


def _can_write(folder: Path) -> bool:
    try:  # access(2) says yes to root everywhere, on read-only and special file systems too
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _fail(error: NotMeasured, job: list[str], options: Options, output: Path) -> None:
    """Says what went wrong, and what was measured until then; exit 2."""
    from dsanalyzer import partial

    lines = error.log.rstrip().splitlines()
    if lines:
        err.print("[dim]── the job's own output (its last lines)[/dim]")
        print("\n".join(lines[-LOG_LINES:]), file=sys.stderr)
    part = partial.build(job, options, error)
    if part is None:
        err.print(f"[bold red]Nothing measured:[/bold red] {escape(str(error))}", highlight=False)
        raise typer.Exit(2)
    err.print(
        f"[bold red]Not measured to the end:[/bold red] {escape(str(error))}", highlight=False
    )
    place = output.with_suffix(".partial.json")  # a result that was there before is worth more
    place.write_text(json.dumps(part, indent=1))
    err.print(
        f"[bold]A partial result is in {escape(str(place))}[/bold], without verdicts and without "
        "fetch:",
        highlight=False,
    )
    for line in partial.lines(part):
        err.print(f"  {line}", highlight=False)
    raise typer.Exit(2)


def _before_start(options: Options) -> str:
    asked = [name for name in ("samples", "rounds", "epochs") if getattr(options, name)]
    fixed = f"; {', '.join(asked)} as asked for" if asked else ""
    return (
        f"The command runs twice, planned to take about {_clock(options.budget_s)}{fixed}. "
        "Ctrl-C ends it."
    )


def _clock(seconds: float) -> str:
    """75 -> 1:15"""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class _Timed:
    """Says a phase with the time gone and the time it should take in all."""

    def __init__(self, show: Callable[[str], None], total_s: float) -> None:
        self._show = show
        self._started = timing.clock()
        self.total_s = total_s

    def __call__(self, text: str) -> None:
        gone = timing.clock() - self._started
        self._show(f"[{_clock(gone)} of about {_clock(max(gone, self.total_s))}] {text}")


@contextmanager
def progress_of(total_s: float) -> Iterator[_Timed]:
    """Current phase on stderr: a live line on a terminal, plain lines elsewhere."""
    if not err.is_terminal:
        last: list[str] = []

        def line(text: str) -> None:
            phase = text.split("] ", 1)[-1]
            if last != [phase]:
                print(f"dsanalyzer: {text}", file=sys.stderr, flush=True)
            last[:] = [phase]

        yield _Timed(line, total_s)
        return
    with err.status("starting") as status:
        yield _Timed(lambda text: status.update(escape(text)), total_s)
