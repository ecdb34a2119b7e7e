"""Counts of a data set's reads, of one process or of a loader's workers together."""

from __future__ import annotations

from typing import Any

from coordl.fetch.tally import Tally

COUNTED = (
    "hits",
    "ssd_hits",
    "remote_hits",
    "remote_bytes",
    "misses",
    "storage_bytes",
    "admitted_bytes",
    "fetch_ns",
)


class Reads:
    """Of this process, since reset()."""

    def __init__(self) -> None:
        self.reset()

    def add(self, name: str, count: int) -> None:
        self._counts[name] += count

    def hit(self, on_ssd: bool) -> None:
        self.add("hits", 1)
        if on_ssd:
            self.add("ssd_hits", 1)

    def given(self, size: int, fetch_s: float) -> None:
        """`size` bytes came from another server."""
        self.add("remote_hits", 1)
        self.add("remote_bytes", size)
        self.add("fetch_ns", int(fetch_s * 1e9))

    def read(self, size: int, admitted: bool, fetch_s: float) -> None:
        """`size` bytes came from storage."""
        self.add("storage_bytes", size)
        if admitted:
            self.add("admitted_bytes", size)
        self.add("fetch_ns", int(fetch_s * 1e9))

    def reset(self) -> None:
        self._counts = dict.fromkeys(COUNTED, 0)

    def totals(self) -> dict[str, int]:
        return dict(self._counts)

    def counters(self) -> dict[str, Any]:
        """By the names of stats()."""
        counts: dict[str, Any] = self.totals()
        counts["fetch_s"] = counts.pop("fetch_ns") / 1e9
        return counts


class SharedReads(Reads):
    """Of this process and the workers it sends the object to."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        super().__init__()

    def add(self, name: str, count: int) -> None:
        self._tally.add(name, count)

    def reset(self) -> None:
        self._base = self._tally.totals()

    def totals(self) -> dict[str, int]:
        now = self._tally.totals()
        return {name: now[name] - self._base[name] for name in COUNTED}
