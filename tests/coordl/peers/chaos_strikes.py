"""Kills and stops at named steps, ordered through files: whoever reaches the step first is struck.

An order is a file "step@signal" in a directory. Who takes it away writes "pid step signal parent
when" to `struck` beside it; when by the monotonic clock, which is one for all processes.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from coordl.peers import steps

SIGNALS = (signal.SIGKILL, signal.SIGSTOP)


def arm(orders: Path) -> None:
    """This process, and those forked from it, are struck from now on."""

    def hook(step: str) -> None:
        for number in SIGNALS:
            try:
                os.unlink(orders / f"{step}@{int(number)}")
            except FileNotFoundError:
                continue
            what = f"{os.getpid()} {step} {int(number)} {os.getppid()} {time.monotonic()}"
            note(orders / "struck", what)
            os.kill(os.getpid(), number)

    steps.hook = hook


def order(orders: Path, step: str, number: int) -> None:
    (orders / f"{step}@{int(number)}").touch()


def struck(orders: Path) -> set[int]:
    """Processes killed at a step so far."""
    told = orders / "struck"
    lines = [line.split() for line in told.read_text().splitlines()] if told.exists() else []
    return {int(pid) for pid, _, number, *_ in lines if int(number) == signal.SIGKILL}


def note(path: Path, line: str) -> None:
    """One line, whole, whoever else writes."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, line.encode() + b"\n")
    finally:
        os.close(file)
