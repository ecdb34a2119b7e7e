"""dsanalyzer watch: how long a job waits for data, as it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dsanalyzer.job import terminate_as_interrupt
from dsanalyzer.measure import timing
from dsanalyzer.measure.not_measured import NotMeasured
from dsanalyzer.measure.run_directory import run_directory
from dsanalyzer.measure.watch import Waited
from dsanalyzer.measure.watch import watch as run
from dsanalyzer.report.page import write_whole
from dsanalyzer.report.units import percent, rate


def watch(
    command: Annotated[
        list[str], typer.Argument(help="The training command, after --.", metavar="-- COMMAND...")
    ],
    every: Annotated[float, typer.Option(help="Seconds between two lines.", min=1.0)] = 10.0,
    prometheus: Annotated[
        Path | None,
        typer.Option(help="Keep the figures in this file, for node_exporter's textfile collector."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write them into this folder too, for TensorBoard.")
    ] = None,
) -> None:
    """Run a training command once, as it is, and say how long it waits for minibatches.

    The wait at next() is fetch and prep together; `dsanalyzer profile` tells them apart. The exit
    code is the command's.
    """
    shown, since = timing.clock(), Waited()  # the latest line
    board = None
    if tensorboard is not None:
        from dsanalyzer.report.board import Board

        try:
            board = Board(tensorboard)
        except ImportError as error:
            raise typer.BadParameter(str(error)) from None

    def report(message: dict[str, Any], total: Waited) -> None:
        nonlocal shown, since
        now = Waited()
        now.add(message)
        since.add(message)
        if prometheus is not None:
            write_whole(prometheus, metrics(total))
        if board is not None:
            board.add(now, total)
        if timing.clock() - shown >= every:
            shown = timing.clock()
            _say(f"{rate(since.rate)}, waits {percent(since.share)}; so far {_words(total)}")
            since = Waited()

    try:
        with terminate_as_interrupt(), run_directory() as directory:
            total, code = run(command, directory, report)
    except NotMeasured as error:
        _say(f"nothing watched: {error}")
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        _say("interrupted; the job was ended.")
        raise typer.Exit(130) from None
    finally:
        if board is not None:
            board.close()
    if total is None:
        _say(
            "nothing watched: no Python process of the command iterated a torch DataLoader under "
            "the hooks. Has it none, or does it run python with -I, -E or -S, or inside a "
            "container or on another machine? Then watch it there."
        )
    else:
        print(f"dsanalyzer: {_words(total) if total.batches else 'no training loop seen'}")
    raise typer.Exit(code or 0)


def _words(total: Waited) -> str:
    return (
        f"{total.samples:,} samples at {rate(total.rate)}, "
        f"waiting for minibatches {percent(total.share)} of the time"
    )


def _say(text: str) -> None:
    print(f"dsanalyzer: {text}", file=sys.stderr, flush=True)


def metrics(total: Waited) -> str:
    """In Prometheus's text format."""
    counters = {
        "wait_seconds_total": (total.wait_s, "Time training loops waited for a minibatch."),
        "loop_seconds_total": (total.wall_s, "Time spent in training loops."),
        "samples_total": (total.samples, "Samples trained on."),
    }
    return "".join(
        f"# HELP dsanalyzer_{name} {text}\n# TYPE dsanalyzer_{name} counter\n"
        f"dsanalyzer_{name} {value:g}\n"
        for name, (value, text) in counters.items()
    )
