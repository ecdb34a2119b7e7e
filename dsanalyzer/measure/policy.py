"""The cached fraction of a fetch phase, enforced by the tool on the job's own files.

The tool sees every open of a data file and keeps in the page cache what a cache of the given size
and policy would hold: *lru* evicts the least recently read item, *never-evict* keeps what came
first and lets nothing else in. Eviction is posix_fadvise(DONTNEED) per file, never drop_caches.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from dsanalyzer.measure import residency, timing

# An open is seen before the read that follows it: a file is evicted at the earliest this long after
# it was last opened.
EVICTION_LAG_S = 0.25


class PageCachePolicy:
    """Decides what stays in memory as the job reads.

    Args:
        sizes: bytes of every data file the phase may read.
        budget_bytes: how much of them may stay resident.
        policy: "lru" or "never-evict".
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        budget_bytes: float,
        policy: str,
        evict: Callable[[str], None] = residency.evict,
        admit: Callable[[str], None] = residency.admit,
    ) -> None:
        if policy not in ("lru", "never-evict"):
            raise ValueError(f"unknown cache policy {policy!r}; choose lru or never-evict")
        self.sizes = dict(sizes)
        self.budget_bytes = budget_bytes
        self.policy = policy
        self._evict, self._admit = evict, admit
        self._held: OrderedDict[str, None] = OrderedDict()
        self._held_bytes = 0
        self._opened_at: dict[str, float] = {}
        self._leaving: deque[tuple[float, str]] = deque()
        self.opens = 0
        self.missed_files = 0
        self.missed_bytes = 0
        self.missed_device_bytes = 0

    def start_pass(self) -> None:
        """Counters to zero; what is held stays held."""
        self.opens = self.missed_files = self.missed_bytes = self.missed_device_bytes = 0

    def touch(self, path: str) -> None:
        """The job opens `path` to read it."""
        size = self.sizes.get(path)
        if size is None:
            return
        self.opens += 1
        self._opened_at[path] = timing.clock()
        if path in self._held:
            if self.policy == "lru":
                self._held.move_to_end(path)
            return
        self.missed_files += 1
        self.missed_bytes += size
        self.missed_device_bytes += residency.device_bytes(size)
        if self.policy == "never-evict" and self._held_bytes + size > self.budget_bytes:
            self._leave(path)
            return
        self._held[path] = None
        self._held_bytes += size
        self._admit(path)
        while self._held_bytes > self.budget_bytes:
            oldest, _ = self._held.popitem(last=False)
            self._held_bytes -= self.sizes[oldest]
            self._leave(oldest)

    def _leave(self, path: str) -> None:
        due = self._opened_at.get(path, 0.0) + EVICTION_LAG_S
        if due <= timing.clock():
            self._evict(path)  # last opened long ago
        else:
            self._leaving.append((due, path))

    def evict_due(self) -> None:
        """Evict the files whose time has come."""
        now = timing.clock()
        while self._leaving and self._leaving[0][0] <= now:
            self._evict_unless_held(self._leaving.popleft()[1])

    def end_pass(self) -> None:
        """Everything opened in this pass has been read by now: evict all that is not held.

        A loader with a deep queue reads long after it opened, when the eviction was already done.
        """
        self._leaving.clear()
        for path in self._opened_at:
            self._evict_unless_held(path)
        self._opened_at.clear()

    def _evict_unless_held(self, path: str) -> None:
        if path not in self._held:
            self._evict(path)

    @property
    def next_eviction_s(self) -> float | None:
        """Seconds until an eviction is due, None when nothing waits."""
        return max(0.0, self._leaving[0][0] - timing.clock()) if self._leaving else None

    @property
    def expected_share(self) -> float:
        """Share of all pages that should be resident now."""
        total = sum(residency.pages(size) for size in self.sizes.values())
        held = sum(residency.pages(self.sizes[path]) for path in self._held)
        return held / total if total else 0.0
