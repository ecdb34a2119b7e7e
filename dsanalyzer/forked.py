"""A loop of this process as the job under test: run in a fork of it, which nothing comes back from.

A profile takes hold of torch's loaders, of opens and of writes, and an audit hook cannot be taken
out again; so the process that asks is not the one that is measured. A fork has its loader, model
and data as they are, and leaves model, generators and files of the asking process untouched. Each
of a profile's two runs has a fork of its own, so that the second finds the loader as the first did.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsanalyzer.job import Running, bound_to_tool, environment
from dsanalyzer.measure.throttle import ReadThrottle


class ForkedJob(Running):
    """A running loop."""

    def __init__(
        self,
        loop: Callable[[], None],
        run_dir: Path,
        *,
        throttle: ReadThrottle | None = None,
        output: Any = None,
    ) -> None:
        prepare = bound_to_tool(throttle)
        arguments = (loop, run_dir, prepare, output)
        self._process = multiprocessing.get_context("fork").Process(target=_run, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait(self, timeout_s: float | None = None) -> int | None:
        self._process.join(timeout_s)
        return self._process.exitcode


def _run(loop: Callable[[], None], run_dir: Path, prepare: Callable[[], None], output: Any) -> None:
    """In the fork: a session of its own, the hooks, the loop; never returns."""
    os.setsid()
    prepare()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if output is not None:  # a notebook's own streams belong to its process
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.update(environment(run_dir))  # spawned workers find the hooks by it
    code: list[int] = []

    def guarded() -> None:
        try:
            _install()
            loop()
        except SystemExit as end:
            code.append(end.code if isinstance(end.code, int) else 1)
        except BaseException:
            traceback.print_exc()
            code.append(1)

    # In a thread of its own: threads that OpenMP had for the forking one are not here, and the
    # forked one would wait for them.
    thread = threading.Thread(target=guarded, name="dsanalyzer-loop", daemon=True)
    thread.start()
    with contextlib.suppress(KeyboardInterrupt):
        while thread.is_alive():
            time.sleep(0.02)
    # Not the end of the forked interpreter: what it would clean up is its parent's.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code[0] if code else 0)


def _install() -> None:
    import torch

    from dsanalyzer.hooks import startup

    startup.install()
    torch.save, torch.load = torch.serialization.save, torch.serialization.load
