"""The job under test: one training command, run observed and ended with all it made.

The job gets a session of its own, so that a signal reaches all its processes; it is started inside
the read throttle's control group where there is one, and dies with the tool (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

from dsanalyzer.measure.throttle import ReadThrottle

INJECT = Path(__file__).parent / "hooks" / "inject"
GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def environment(run_dir: Path) -> dict[str, str]:
    """The tool's own environment plus what injects the hooks into every Python of the job."""
    variables = dict(os.environ)
    path = [str(INJECT), *filter(None, [variables.get("PYTHONPATH")])]
    variables["PYTHONPATH"] = os.pathsep.join(path)
    variables["DSANALYZER_RUN"] = str(run_dir)
    return variables


def bound_to_tool(throttle: ReadThrottle | None) -> Callable[[], None]:
    """What a child does between fork and exec: it dies with the tool, and joins the throttle."""
    tool = os.getpid()

    def before_exec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != tool:  # it died in between
            os._exit(1)
        if throttle is not None:
            throttle.join()

    return before_exec


class Running(abc.ABC):
    """What leads a session of its own; context manager that leaves no process of it behind.

    Attributes:
        pid: of the leader.
    """

    pid: int

    @abc.abstractmethod
    def wait(self, timeout_s: float | None = None) -> int | None:
        """Exit code, or None when it still runs after `timeout_s`."""

    def end(self) -> None:
        """Interrupt, then terminate, then kill the whole session."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            if self.wait(GRACE_S) is not None:
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # workers that outlived their parent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Job(Running):
    """A running training command."""

    def __init__(
        self,
        command: Sequence[str],
        run_dir: Path,
        *,
        throttle: ReadThrottle | None = None,
        output: Any = None,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment(run_dir),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=True,
            preexec_fn=bound_to_tool(throttle),
        )
        self.pid = self._process.pid

    def wait(self, timeout_s: float | None = None) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


@contextlib.contextmanager
def terminate_as_interrupt() -> Any:
    """Within it, SIGTERM and SIGHUP clean up as Ctrl-C does, and a second one disturbs nothing."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    earlier = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
