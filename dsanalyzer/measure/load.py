"""As much CPU load as a loader makes, with nothing loaded.

Workers take cores from the training loop. What its own work takes longer beside such a load would
be there too if every minibatch came in time, so that no faster fetch or prep could take it away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

TURN_S = 0.01  # in which each process computes for its share and then rests
_CHUNK = bytes(1 << 16)  # read over and over, as pixels are


class Load:
    """Processes that compute for `cores` seconds per second together; none is left after `end`."""

    def __init__(self, cores: float, processes: int, on: Iterable[int] | None = None) -> None:
        """`on` are the cores they may run on; None leaves them those of this process."""
        share = min(1.0, cores / processes)
        self._began = 0.0, time.monotonic()
        words = [sys.executable, "-I", "-S", __file__, str(share)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._processes = [
            subprocess.Popen(words, **pipes, start_new_session=True)  # type: ignore[call-overload]
            for _ in range(processes)
        ]
        for process in self._processes:
            if on is not None:
                os.sched_setaffinity(process.pid, on)
            if process.stdout.read(1) != b".":
                self.end()
                raise RuntimeError("a process that was to compute beside the job did not start")
        self._began = self._used_s(), time.monotonic()

    def _used_s(self) -> float:
        """Of their main threads, which are what computes."""
        return sum(
            int(Path(f"/proc/{one.pid}/schedstat").read_text().split()[0]) / 1e9
            for one in self._processes
        )

    def end(self) -> float:
        """Ends them. Returns the cores that they kept busy."""
        used_s, began = self._began
        cores = (self._used_s() - used_s) / max(1e-9, time.monotonic() - began)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()
        self._processes = []
        return cores


def compute(share: float) -> None:
    """Until its standard input ends: with the tool, at the latest."""
    import threading

    ended = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    sys.stdout.write(".")
    sys.stdout.flush()
    due = time.monotonic()
    while not ended.is_set():
        until = time.thread_time() + share * TURN_S
        while time.thread_time() < until:
            zlib.crc32(_CHUNK)
        # A turn that found no core in time is not made up for: workers would be late, too.
        due = max(due + TURN_S, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    compute(float(sys.argv[1]))
