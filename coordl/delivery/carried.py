"""What passes from the making of a minibatch to the loader beside its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data._utils.pin_memory import pin_memory

from coordl.delivery.on_error import BadSamples
from coordl.staging.around import AroundCollate


class Nothing:
    """Type of NOTHING."""

    def __reduce__(self) -> str:
        return "NOTHING"


NOTHING = Nothing()  # in place of a minibatch of which no sample is left


@dataclass
class Carried:
    """A minibatch with what the loader wants to know of its making; unpacked before it is yielded.

    Attributes:
        data: as collated; NOTHING where there is none to yield.
        bad: samples left out or replaced.
        before: the worker's state before its first minibatch of the pass, pickled.
        after: its state after this one, pickled, where it was due.
        samples, minibatches: given by this worker in this pass so far, of iterable data sets.
    """

    data: Any
    bad: BadSamples | None = None
    before: bytes | None = None
    after: bytes | None = None
    samples: int = 0
    minibatches: int = 0

    def pin_memory(self, device: Any = None) -> Carried:
        """torch's pinning calls it, as of any type that is not its own."""
        if self.data is not NOTHING:
            self.data = pin_memory(self.data, device)  # type: ignore[no-untyped-call]
        return self


@dataclass
class Made:
    """Samples on their way to be collated, within one process.

    Attributes:
        samples: a list, or one sample; NOTHING where none is left.
        snapshot: gives the state after collation, where it is due.
    """

    samples: Any
    bad: BadSamples | None = None
    before: bytes | None = None
    snapshot: Callable[[], bytes] | None = None


class CarryingCollate(AroundCollate):
    """The loader's collate function, for samples that come with something else."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        if type(samples) is not Made:
            return self.collate(samples)
        data = NOTHING if samples.samples is NOTHING else self.collate(samples.samples)
        after = None if samples.snapshot is None else samples.snapshot()
        return Carried(data, samples.bad, samples.before, after)
