"""The driver's end of a worker process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .registry import Entry

ROOT = Path(__file__).parent.parent.parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
# Libraries with threads of their own: one, like everybody.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "RAYON_NUM_THREADS",
    ),
    "1",
)
# glibc keeps freed memory instead of giving every large block back to the kernel. The first is the
# largest that mallopt takes (HEAP_MAX_SIZE / 2).
MALLOC = {
    "default": {},
    "raised": {
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
        "MALLOC_TOP_PAD_": str(64 << 20),
    },
}


class WorkerError(Exception):
    """The worker could not do what it was asked; says why."""


def python_of(entry: Entry) -> str:
    """The interpreter of an entry's environment. Raises WorkerError where there is none."""
    if entry.environment == "own":
        return sys.executable
    if not PEERS_PYTHON.exists():
        raise WorkerError("no .venv-peers here: run with --peers to have it set up")
    return str(PEERS_PYTHON)


def environment_of(entry: Entry, malloc: str) -> dict[str, str]:
    """The variables of an entry's process; of the driver's own, none that changes what runs."""
    barred = ("COORDL_", "MALLOC_", "PYTHONPATH", "LD_PRELOAD")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(barred)}
    if entry.path:
        variables["PYTHONPATH"] = str(PEERS_PYTHON.parent.parent / entry.path)
    return variables | ONE_THREAD | MALLOC[malloc] | entry.variables


class Worker:
    """One variant in a process of its own, bound to one CPU. Used by one thread; closed at the end.

    Args:
        cpu: the CPU it runs on.
        malloc: "default" or "raised", glibc's thresholds.
    """

    def __init__(self, entry: Entry, cpu: int, malloc: str = "default") -> None:
        self.entry = entry
        self.cpu = cpu
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # until close()
        self.process = subprocess.Popen(
            [python_of(entry), "-m", f"{__package__}.worker", str(cpu)],
            cwd=ROOT,
            env=environment_of(entry, malloc),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def send(self, **request: Any) -> None:
        """One request. Raises WorkerError where the process has ended."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise WorkerError(self._last_words()) from error

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """The answer to the request before. Raises WorkerError: an error, its end, no answer."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], timeout_s)[0]:
            self.process.kill()
            raise WorkerError(f"no answer within {timeout_s:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def ask(self, timeout_s: float = 300.0, **request: Any) -> dict[str, Any]:
        """Sends and receives."""
        self.send(**request)
        return self.receive(timeout_s)

    def _last_words(self) -> str:
        code = self.process.wait(10)
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        return f"the worker ended with code {code}: {lines[-1] if lines else 'it said nothing'}"

    def close(self) -> None:
        """Ends the process."""
        try:
            self.send(do="stop")
            self.process.wait(10)
        except (WorkerError, subprocess.TimeoutExpired):
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream:
                with contextlib.suppress(BrokenPipeError):  # what a dead worker never read
                    stream.close()
