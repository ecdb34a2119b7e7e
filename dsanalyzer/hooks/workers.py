"""What loading a minibatch takes a worker: on a core, waiting for one, waiting for anything else.

torch's workers (and its loader without any) load map-style minibatches in one place, which is
timed here: the samples, then collation. What is neither core nor queue is mostly storage; so the
passes from memory and from storage show by their difference what fetch costs a sample. Where the
data set has a loader and transforms as torchvision's have, a worker times each of them, too.
"""

from __future__ import annotations

import os
import time
from types import ModuleType
from typing import Any

from dsanalyzer.hooks.parts import Parts
from dsanalyzer.hooks.wire import Connection


def queued_s() -> float:
    """Seconds this thread has waited for a core; 0 where the kernel does not say."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _worker() -> int | None:
    """Number of this worker in its loader; None in the training process itself."""
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return None if info is None else int(info.id)


def patch(module: ModuleType, config: dict[str, Any]) -> None:
    """`module` is torch.utils.data._utils.fetch."""
    events = Connection(config["socket"], "events")
    fetcher = module._MapDatasetFetcher
    load = fetcher.fetch
    parts: Parts | None = None

    def fetch(self: Any, asked: Any) -> Any:
        nonlocal parts
        # In the training process the data set is the job's own, which is left as it is.
        if parts is None and _worker() is not None:
            parts = Parts(self.dataset)
        collate, collated_s, collated_at = self.collate_fn, 0.0, 0.0

        def timed(samples: Any) -> Any:
            nonlocal collated_s, collated_at
            collated_at = time.perf_counter()
            try:
                return collate(samples)
            finally:
                collated_s += time.perf_counter() - collated_at

        begin, on_core, queued = time.perf_counter(), time.thread_time(), queued_s()
        self.collate_fn = timed
        try:
            data = load(self, asked)
        finally:
            self.collate_fn = collate
        message = {
            "op": "loaded",
            "samples": len(asked) if isinstance(asked, list) else 1,
            "wall_s": time.perf_counter() - begin,
            "cpu_s": time.thread_time() - on_core,
            "queued_s": queued_s() - queued,
            "collate_s": collated_s,
            "parts": parts.take() if parts is not None else {},
            "at_s": begin,
            "collate_at_s": collated_at,
            "pid": os.getpid(),
            "worker": _worker(),
            "rank": int(os.environ.get("RANK", "0")),
        }
        events.event(message)
        return data

    fetcher.fetch = fetch
