"""What `dsanalyzer watch` sees: how long a job waits for minibatches, as it runs, and nothing else.

Two readings of the clock per minibatch, and a message a second; nothing is diverted or replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from dsanalyzer.hooks import subset, training
from dsanalyzer.hooks.wire import Connection
from dsanalyzer.measure import timing

REPORT_S = 1.0


class Watcher:
    """Takes the conductor's place; one per process."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.pid = os.getpid()
        self._events = Connection(config["socket"], "events")
        self._seen: list[Any] = []

    def observe(self, loader: Any, open_loader: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """The loader's own minibatches, their waits counted."""
        if not any(loader is known for known in self._seen):
            self._seen.append(loader)
        number = next(n for n, known in enumerate(self._seen) if known is loader)
        count = _Count(number, training.steps())
        asked = timing.clock()
        for batch in open_loader():
            now = timing.clock()
            count.add(now - asked, subset.samples_in(batch))
            yield batch
            asked = timing.clock()
            if asked - count.since >= REPORT_S:
                self._events.event(count.message(asked))
                count = _Count(number, training.steps())
        self._events.event(count.message(timing.clock()))


class _Count:
    """Of one loader since the last report."""

    def __init__(self, loader: int, steps: int) -> None:
        self.since = timing.clock()
        self._loader = loader
        self._steps = steps
        self._wait_s = 0.0
        self._batches = self._samples = 0

    def add(self, wait_s: float, samples: int) -> None:
        self._wait_s += wait_s
        self._batches += 1
        self._samples += samples

    def message(self, now: float) -> dict[str, Any]:
        return {
            "op": "watched",
            "pid": os.getpid(),
            "loader": self._loader,
            "wall_s": now - self.since,
            "wait_s": self._wait_s,
            "batches": self._batches,
            "samples": self._samples,
            "steps": training.steps() - self._steps,
        }
