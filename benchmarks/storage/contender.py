"""The driver's and the program's end of one contender's run, line by line.

The program says it is ready, then runs an epoch for every line it gets, and answers with figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def serve(epoch: Callable[[], dict[str, Any]]) -> None:
    """In the program: an epoch for each line; its figures and the wall time, in seconds."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    answers.write("ready\n")
    for _ in sys.stdin:
        begin = time.perf_counter()
        figures = epoch()
        answers.write(json.dumps({"seconds": time.perf_counter() - begin, **figures}) + "\n")


def cpu_seconds(root: int) -> float:
    """Of a process and all below it, with those that ended and were waited for."""
    ticks, parents = {}, {}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit():
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                parents[int(entry)] = int(fields[1])
                ticks[int(entry)] = sum(map(int, fields[11:15]))  # proc(5): utime to cstime
    wanted, total = [root], 0
    while wanted:
        pid = wanted.pop()
        total += ticks.get(pid, 0)
        wanted += [child for child, parent in parents.items() if parent == pid]
    return total / os.sysconf("SC_CLK_TCK")


class ContenderError(Exception):
    """The program ended or said nothing sensible; says what it said last."""


class Contender:
    """A program, named as `python -m` has it, in a process of its own. Context manager."""

    def __init__(
        self,
        python: str,
        module: str,
        arguments: list[str],
        limit: Callable[[], None] | None = None,
    ) -> None:
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # until the end
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            preexec_fn=limit,
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait(10)
            self._log.seek(0)
            said = (self._log.read().strip().splitlines() or ["it said nothing"])[-1]
            raise ContenderError(said if code >= 0 else f"killed by signal {-code}; last: {said}")
        return line

    def epoch(self) -> dict[str, Any]:
        """Runs one: the program's figures, and the CPU seconds of all its processes meanwhile.
        Raises ContenderError."""
        assert self._process.stdin is not None
        before = cpu_seconds(self._process.pid)
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        figures: dict[str, Any] = json.loads(self._answer())
        return {**figures, "cpu_seconds": cpu_seconds(self._process.pid) - before}

    def kill(self) -> None:
        """Ends it: who waits for its epoch gets ContenderError."""
        self._process.kill()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def paths_of(folder: Path) -> Iterator[str]:
    """Its pictures, sorted."""
    return (str(path) for path in sorted(folder.rglob("*")) if path.is_file())
