"""Recorded step times of an accelerator that is not here: what `--gpu-trace` reads."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FEWEST_STEPS = 10


class TraceError(ValueError):
    """A file that holds no step times; the message says what it should hold."""


@dataclass(frozen=True)
class Trace:
    """Seconds that each step took the accelerator alone, with minibatches of `batch_size`."""

    batch_size: int
    steps_s: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Samples/s, the mean over the trace."""
        return self.batch_size * len(self.steps_s) / sum(self.steps_s)

    def json(self) -> dict[str, Any]:
        return asdict(self)


def load(path: Path) -> Trace:
    """A JSON object with batch_size and steps_s (a list of seconds).

    Raises:
        TraceError: missing, not that, or fewer than 10 steps.
    """
    wanted = 'write {"batch_size": 64, "steps_s": [0.051, 0.049, ...]}, the time of each step'
    try:
        document = json.loads(path.read_text())
        batch_size, steps_s = document["batch_size"], document["steps_s"]
        trace = Trace(int(batch_size), tuple(map(float, steps_s)))
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise TraceError(f"{path} holds no step times; {wanted}") from None
    if trace.batch_size < 1 or len(trace.steps_s) < FEWEST_STEPS:
        raise TraceError(
            f"{path} holds {len(trace.steps_s)} steps of {trace.batch_size} samples; at least "
            f"{FEWEST_STEPS} steps are needed; {wanted}"
        )
    if bad := [s for s in trace.steps_s if not (math.isfinite(s) and s > 0)]:
        raise TraceError(f"{path}: a step of {bad[0]} s; {wanted}")
    return trace
