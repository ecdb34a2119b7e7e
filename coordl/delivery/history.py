"""What a loader did, epoch by epoch: the figures behind `DataLoader.stats()`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from coordl.delivery.on_error import BadSamples

# A counter is None where this process cannot know it: Python workers count for themselves.
COUNTED = (
    "hits",
    "ssd_hits",
    "remote_hits",
    "remote_bytes",
    "misses",
    "served_bytes",
    "storage_bytes",
    "admitted_bytes",
    "bypassed_opens",
    "bypassed_bytes",
    "read_ahead_bytes",
    "fetch_s",
    "prep_s",
    "admit_s",
    "from_original",
    "from_indexed",
    "from_packed",
)


@dataclass
class EpochRecord:
    """One iterator's figures.

    Attributes:
        epoch: number that keyed the draws, or how many iterators yielded before.
        native: prepared by native threads.
        samples: yielded so far.
        wait_s: seconds the consumer spent inside next().
        began_at: sample of the epoch's order with which the pass began; those before it come last.
            0 but where a job came to a group late.
        begun: something was yielded, or had been before the pass was gone on with.
        bad: samples left out or replaced.
        counters: current values of COUNTED, from whoever does the work.
        shared: of a group's samples, where this job's came from; None outside a group.
    """

    epoch: int
    native: bool
    samples: int = 0
    wait_s: float = 0.0
    began_at: int = 0
    begun: bool = False
    bad: BadSamples = field(default_factory=BadSamples)
    counters: Callable[[], dict[str, Any]] = field(default=dict, repr=False)
    shared: Callable[[], dict[str, int]] | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        now = self.counters()
        return {
            "epoch": self.epoch,
            "native": self.native,
            "samples": self.samples,
            "skipped": self.bad.skipped,
            "replaced": self.bad.replaced,
            "bad_samples": list(self.bad.first),
            **{name: now.get(name) for name in COUNTED},
            "wait_s": self.wait_s,
            "began_at": self.began_at,
            "shared": None if self.shared is None else self.shared(),
        }

    def freeze(self) -> None:
        """Keeps the figures and lets go of who counted them."""
        last = self.counters()
        self.counters = lambda: last
        if self.shared is not None:
            shared = self.shared()
            self.shared = lambda: shared


class History:
    """Records of a loader's iterators, oldest first. Shared by the loader and its iterators."""

    def __init__(self) -> None:
        self.records: list[EpochRecord] = []
        self.yielded = 0  # iterators that yielded something: the epoch's number without set_epoch

    def begin(self, epoch: int, native: bool, begun: bool = False) -> EpochRecord:
        record = EpochRecord(epoch, native, begun=begun)
        self.records.append(record)
        return record

    def count(self, record: EpochRecord, samples: int, wait_s: float) -> None:
        """Books one minibatch."""
        if not record.begun:
            record.begun = True
            self.yielded += 1
        record.samples += samples
        record.wait_s += wait_s

    def as_dict(self) -> dict[str, Any]:
        epochs = [record.as_dict() for record in self.records]
        total: dict[str, Any] = {}
        for name in ("samples", "skipped", "replaced", *COUNTED, "wait_s"):
            known = [epoch[name] for epoch in epochs if epoch[name] is not None]
            add = max if name == "read_ahead_bytes" and known else sum  # the one peak among sums
            total[name] = add(known) if len(known) == len(epochs) else None
        return {"epochs": epochs, "total": total}
