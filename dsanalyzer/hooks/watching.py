"""What `dsanalyzer watch` sees: how long a job waits for minibatches, as it runs, and nothing else.

Two readings of the clock per minibatch, and a message a second; nothing is diverted or replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from dsanalyzer.hooks import subset, training
from dsanalyzer.hooks.wire import Connection
from dsanalyzer.measure import timing

REPORT_S = 1.0


class Watcher:
    """Takes the conductor's place; one per process."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.pid = os.getpid()
        self._events = Connection(config["socket"], "events")
        # By loader, which this does not keep alive: a number, and whether an optimizer has stepped
        # between its minibatches.
        self._seen: WeakKeyDictionary[Any, _Seen] = WeakKeyDictionary()

    def observe(self, loader: Any, open_loader: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """The loader's own minibatches, their waits counted; also where the job breaks off."""
        seen = self._seen.setdefault(loader, _Seen(len(self._seen)))
        del loader
        count = _Count()
        asked = until = timing.clock()
        try:
            for batch in open_loader():
                until = timing.clock()
                count.add(until - asked, subset.samples_in(batch))
                yield batch
                asked = until = timing.clock()
                # What nobody has stepped on yet may be validation.
                seen.trains = seen.trains or training.steps() > count.steps
                if seen.trains and until - count.since >= REPORT_S:
                    self._events.event(count.message(seen.number, until))
                    count = _Count()
            until = timing.clock()
        finally:  # also where the job left: then up to the last minibatch it took
            if seen.trains:
                self._events.event(count.message(seen.number, until))


@dataclass
class _Seen:
    number: int
    trains: bool = False


class _Count:
    """Of one loader since the last report."""

    def __init__(self) -> None:
        self.since = timing.clock()
        self.steps = training.steps()
        self._wait_s = 0.0
        self._batches = self._samples = 0

    def add(self, wait_s: float, samples: int) -> None:
        self._wait_s += wait_s
        self._batches += 1
        self._samples += samples

    def message(self, loader: int, now: float) -> dict[str, Any]:
        return {
            "op": "watched",
            "pid": os.getpid(),
            "loader": loader,
            "wall_s": now - self.since,
            "wait_s": self._wait_s,
            "batches": self._batches,
            "samples": self._samples,
            "steps": training.steps() - self.steps,
        }
