"""Which job a member of a group belongs to, and what jobs had of their groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def job_of(pid: int, jobs: Collection[int]) -> int | None:
    """Which of `jobs` it is, or was started by, at any remove; None: none, or it is gone."""
    while pid > 1:
        if pid in jobs:
            return pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            return None
    return None


@dataclass(frozen=True)
class Shared:
    """Samples, of all epochs: prepared here for all, for this job alone, and by others."""

    prepared: int = 0
    alone: int = 0
    staged: int = 0

    @property
    def saved(self) -> float | None:
        """The share that others prepared; None: no sample yet."""
        every = self.prepared + self.alone + self.staged
        return self.staged / every if every else None

    @classmethod
    def of(cls, members: Iterable[dict[str, Any]]) -> Shared:
        """All of theirs."""
        kept = list(members)
        return cls(*(sum(each[name] for each in kept) for name in ("prepared", "alone", "staged")))


def members_by_job(members: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Worker processes with the one that started them, which comes first and has no samples itself.
    (So a driver that joins, makes none, and starts jobs is told as one with workers.)"""
    idle = {each["pid"] for each in members if Shared.of([each]).saved is None}
    found: dict[int, list[dict[str, Any]]] = {}
    for each in sorted(members, key=lambda member: member["pid"] not in idle):
        starter = job_of(each["pid"], idle - {each["pid"]})
        found.setdefault(starter or each["pid"], []).append(each)
    return [found[pid] for pid in sorted(found)]
