"""As much CPU load as a loader makes, with nothing loaded.

Workers take cores from the training loop. What its own work takes longer beside such a load would
be there too if every minibatch came in time, so that no faster fetch or prep could take it away.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import zlib

TURN_S = 0.01  # in which each process computes for its share and then rests
_CHUNK = bytes(1 << 16)  # read over and over, as pixels are


class Load:
    """Processes that compute for `cores` seconds per second together; none is left after `end`."""

    def __init__(self, cores: float, processes: int) -> None:
        share = min(1.0, cores / processes)
        words = [sys.executable, "-I", "-S", __file__, str(share)]
        self._processes = [
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(processes)
        ]
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.read(1)  # it has started

    def end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.communicate()
        self._processes = []


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
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)


if __name__ == "__main__":
    compute(float(sys.argv[1]))
