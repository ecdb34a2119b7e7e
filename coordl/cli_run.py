"""`coordl run`: several jobs on this machine that share fetch and prep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.table import Table

from coordl.staging.job_group import JobGroup
from coordl.staging.jobs import Shared, job_of

JOB = "COORDL_JOB"
_PLACE = "{job}"
_POLL_S = 0.05
_LOOK_S = 0.25  # at what the group shares


@dataclass
class _Running:
    """One job.

    Attributes:
        code: its exit status, or minus the signal that ended it; None while it runs.
        shared: what its processes had of their groups when last looked at.
    """

    number: int
    log: Path
    process: subprocess.Popen[bytes]
    file: BinaryIO
    began: float
    ended: float = 0.0
    code: int | None = None
    shared: dict[tuple[str, int, int], dict[str, Any]] = field(default_factory=dict)

    def has_ended(self) -> bool:
        if self.code is None and (code := self.process.poll()) is not None:
            self.code, self.ended = code, time.monotonic()
            self.file.close()
        return self.code is not None


def run(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND ...", help="the job, as `python train.py`; {job} is its number"
        ),
    ],
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="how many")] = 2,
    group: Annotated[
        str | None, typer.Option(help="their group; by default one of this run alone")
    ] = None,
    logs: Annotated[
        Path, typer.Option(help="directory for what they print: job-0.log, job-1.log, ...")
    ] = Path("coordl-logs"),
    force: Annotated[bool, typer.Option("--force", "-f", help="write over logs there")] = False,
) -> None:
    """Run a command several times at once, as jobs of a group.

    Each gets COORDL_GROUP, so that its loaders share what they can, and COORDL_JOB, its number from
    0 on, to choose its hyper-parameters by; {job} in the command is that number too. One that fails
    leaves the others alone. Ctrl-C ends all. "from others" is what a job's loaders had ready from
    other jobs, as it was seen last; empty where none was seen.

    Exit status 0 when all did; 1 when some job failed; 2 when they could not be run.
    """
    paths = [logs / f"job-{number}.log" for number in range(jobs)]
    there = [path for path in paths if path.exists()]
    if there and not force:
        raise _cannot(f"{there[0]} is there already; name other --logs, or give --force")
    try:
        its = JobGroup(group or f"run-{os.getpid()}")
    except ValueError as error:
        raise _cannot(str(error)) from None
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot(f"--logs {logs}: {error.strerror}") from None
    running: list[_Running] = []
    looked = 0.0
    with _interrupts_handed_on(running) as received:
        for number, path in enumerate(paths):
            if received:
                break
            words = [part.replace(_PLACE, str(number)) for part in command]
            try:
                running.append(_start(words, number, path, its))
            except OSError as error:
                _end(running, signal.SIGTERM)
                raise _cannot(f"{words[0]}: {error.strerror}") from None
        for signalled in received:  # one that came while a job was being started missed that
            if signalled != signal.SIGINT:
                _end(running, signalled)
        print(f"{jobs} jobs in group {its.name}; what they print: {logs}", file=sys.stderr)
        while not all([job.has_ended() for job in running]):
            if time.monotonic() - looked > _LOOK_S:
                _look(its, running)
                looked = time.monotonic()
            time.sleep(_POLL_S)
    console = Console(width=80, highlight=False)
    console.print(_table(running))
    saved = Shared.of(member for job in running for member in job.shared.values()).saved
    if saved is not None and all(job.shared for job in running):  # else it would be of some alone
        console.print(f"{saved:.0%} of fetch and prep saved (as last seen)")
    if any(job.code for job in running):
        raise typer.Exit(1)


def _cannot(why: str) -> typer.Exit:
    print(f"coordl: {why}", file=sys.stderr)
    return typer.Exit(2)


def _start(command: list[str], number: int, log: Path, group: JobGroup) -> _Running:
    environment = {**os.environ, **group.environment(), JOB: str(number)}
    file = open(log, "wb")  # noqa: SIM115 - until the job ends
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    except OSError:
        file.close()
        log.unlink(missing_ok=True)
        raise
    return _Running(number, log, process, file, time.monotonic())


def _look(group: JobGroup, running: list[_Running]) -> None:
    """Members take their figures with them when they end."""
    jobs = {job.process.pid: job for job in running}
    for ring in group.status():
        for member in ring["members"]:
            pid = job_of(member["pid"], jobs)
            if pid is not None:
                who = (ring["name"], member["pid"], member["began_s"])
                jobs[pid].shared[who] = member


def _end(running: list[_Running], number: int) -> None:
    for job in running:
        if not job.has_ended():
            job.process.send_signal(number)


@contextmanager
def _interrupts_handed_on(running: list[_Running]) -> Iterator[list[int]]:
    """SIGTERM, and the terminal's end, go on to the jobs; Ctrl-C reaches them by itself. All are
    waited for. Gives the signals that came."""
    received: list[int] = []

    def hand_on(number: int, _: Any) -> None:
        received.append(number)
        if number != signal.SIGINT:
            _end(running, number)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on),
        signal.SIGHUP: signal.signal(signal.SIGHUP, hand_on),
        signal.SIGINT: signal.signal(signal.SIGINT, hand_on),
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _table(running: list[_Running]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("job", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("ended")
    table.add_column("from others", justify="right")
    table.add_column("log", overflow="fold")
    for job in running:
        code = job.code or 0
        ended = f"signal {-code}" if code < 0 else f"exit {code}"
        saved = Shared.of(job.shared.values()).saved
        others = "" if saved is None else f"{saved:.0%}"
        table.add_row(str(job.number), f"{job.ended - job.began:.1f}", ended, others, job.log.name)
    return table
