"""Runs a job once, as it is, and adds up what it waited for minibatches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsanalyzer.job import Job
from dsanalyzer.measure.not_measured import cannot_run
from dsanalyzer.observer import Observer


@dataclass
class Waited:
    """Totals of the training loaders; `wall_s` is the time spent in their loops, in seconds."""

    wall_s: float = 0.0
    wait_s: float = 0.0
    samples: int = 0
    batches: int = 0

    def add(self, message: dict[str, Any]) -> None:
        self.wall_s += message["wall_s"]
        self.wait_s += message["wait_s"]
        self.samples += message["samples"]
        self.batches += message["batches"]

    @property
    def share(self) -> float:
        """Of the time, that was spent waiting for a minibatch."""
        return self.wait_s / self.wall_s if self.wall_s else 0.0

    @property
    def rate(self) -> float:
        """Samples/s."""
        return self.samples / self.wall_s if self.wall_s else 0.0


def watch(
    command: Sequence[str], directory: Path, on_report: Callable[[dict[str, Any], Waited], None]
) -> tuple[Waited | None, int | None]:
    """Totals, and the job's exit code; None of the former where no loader was iterated under hooks.

    Only loaders between whose minibatches an optimizer has stepped count, so validation is left
    out. `on_report` is called about once a second and rank.

    Raises:
        NotMeasured: the command cannot be run.
    """
    config = {"kind": "watch", "socket": str(directory / "socket")}
    (directory / "config.json").write_text(json.dumps(config))
    total = Waited()

    def watched(message: dict[str, Any]) -> None:
        total.add(message)
        on_report(message, total)

    observer = Observer(directory / "socket", directory, on_watched=watched)
    try:
        with cannot_run(command), Job(command, directory) as job:
            code = job.wait()
    finally:
        observer.close()
    return total if observer.hooked else None, code
