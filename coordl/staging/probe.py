"""What a group learns of a data set of the user's own before it shares its samples."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from coordl.errors import GroupError
from coordl.prep.keyed import KeyedDataset
from coordl.staging.record import to_record

_LENGTH = 8  # bytes before a record
_SLACK = 64  # samples of one size differ by the digits of a label
_VARYING = 2  # times the largest of those looked at


@dataclass(frozen=True)
class Probe:
    """A few samples, looked at.

    Attributes:
        digest: of the first, drawn with the group's seed in epoch 0.
        record_bytes: room for a sample in a slot, its length included.
        varying: samples differ in size; those larger than that room each job makes itself.
    """

    digest: str
    record_bytes: int
    varying: bool

    @classmethod
    def of(cls, dataset: Any, seed: int) -> Probe:
        """Makes the data set's first sample twice, and three others.

        Raises:
            GroupError: the same key gave two different samples, or they cannot be pickled.
        """
        keyed, last = KeyedDataset(dataset, seed), len(dataset) - 1
        first, again = (_record(keyed, 0) for _ in range(2))
        if first != again:
            raise GroupError(
                "this data set gives two different samples for the same seed, epoch and index: a "
                "transform draws from a generator of its own, or keeps a state. Have it draw from "
                "random, numpy.random or torch, which are keyed, or leave the group."
            )
        others = sorted({last // 3, 2 * last // 3, last})
        sizes = [len(first), *(len(_record(keyed, index)) for index in others)]
        largest, varying = max(sizes), max(sizes) - min(sizes) > _SLACK
        room = int(_VARYING * largest) if varying else largest + _SLACK
        return cls(blake2b(first, digest_size=8).hexdigest(), _LENGTH + room, varying)


def _record(keyed: KeyedDataset, index: int) -> bytes:
    sample = keyed[0, index]
    try:
        return to_record(sample)
    except Exception as error:
        raise GroupError(f"samples of this data set cannot be shared: {error}") from error
