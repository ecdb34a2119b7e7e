"""One tier of a cache: an arena in shared memory, or one that is kept on a local disk."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any

from coordl import _native
from coordl.errors import CacheError
from coordl.fetch.budget import format_bytes
from coordl.user_warning import warn_user

_OURS = {errno.ENOSPC, errno.ENOMEM, errno.EPROTO, errno.EUSERS, errno.ETIMEDOUT, errno.EAGAIN}
_MOST_OF_INDEX = 0.9  # of its slots; beyond, items are refused for want of a near one
_LIMITS = {
    "shm": "{directory} has {free} free; make it larger (mount -o remount,size=..., or docker run "
    "--shm-size=...), or clear other arenas (coordl status)",
    "cgroup": "the memory cgroup leaves {free}; raise the container's or job's memory limit "
    "(docker run --memory=..., sbatch --mem=...)",
    "memory": "the machine has {free} of memory available; end other jobs or ask for less",
    "none": "run coordl doctor",
}


@dataclass
class Tier:
    """An open arena.

    Attributes:
        name: its name.
        asked_bytes: the budget it was opened with; the arena's own may be another.
        directory: of the disk it is kept on; None: shared memory.
        insisted: whether a size was asked for; else another user's will do.
    """

    arena: _native.Arena
    name: str
    asked_bytes: int
    directory: str | None = None
    insisted: bool = True
    _warned_stop: bool = False
    _warned_damage: bool = False

    @classmethod
    def open(
        cls,
        name: str,
        size: int,
        expected_items: int,
        directory: str | None = None,
        *,
        persist: bool = False,
        insisted: bool = True,
    ) -> Tier:
        """Opens or creates it.

        Raises:
            CacheError, ValueError, OSError: as MinIOCache says.
        """
        try:
            if directory is not None:
                os.makedirs(directory, mode=0o700, exist_ok=True)
            arena = _native.Arena.open(
                name, size, expected_items, persist, raise_budget=insisted, kept_in=directory
            )
        except OSError as error:
            text = str(error) if error.filename else error.strerror or str(error)
            if directory is not None:
                raise CacheError(
                    f"the cache cannot be kept in ssd={directory!r}: {text}. Name a directory of a "
                    "local disk that this user may write to, or leave ssd= out."
                ) from error
            if error.errno == errno.EINVAL:
                raise ValueError(text) from error
            if error.errno in _OURS:
                raise CacheError(text) from error
            raise
        return cls(arena, name, size, directory, insisted)

    def stats(self) -> dict[str, Any]:
        return dict(self.arena.stats())

    def room_bytes(self) -> int:
        """What it would still take, 0 when it grows no more."""
        stats = self.stats()
        room = int(stats["budget_bytes"]) - int(stats["held_bytes"])
        return 0 if stats["stopped_errno"] else max(0, room)

    def warn_if_other_than_asked(self, items: int) -> None:
        """A UserWarning when the arena has another budget than it was opened with, or no room for
        that many items."""
        stats = self.stats()
        again = f"coordl clear {self.name}{self._option}"
        anew = f"End its users, then {again}, and the next makes it anew."
        room = stats["index_slots"] * _MOST_OF_INDEX
        if items > room:
            warn_user(
                f"{self._called} was made with an index for {room:,.0f} items, and {items:,} are "
                f"expected here: those beyond are not held. {anew}"
            )
        budget, size = stats["budget_bytes"], self.asked_bytes
        if not self.insisted and size != stats["asked_bytes"]:
            return
        if size < budget:
            warn_user(
                f"{self._called} has a budget of {format_bytes(budget)} already; the "
                f"{format_bytes(size)} asked for here do not apply. One arena has one budget: the "
                "largest asked for so far."
            )
        elif budget < size and budget >= stats["most_bytes"]:
            warn_user(
                f"{self._called} holds {format_bytes(budget)} instead of the {format_bytes(size)} "
                f"asked for: it was made with address space for no more. {anew}"
            )
        elif budget < size:
            warn_user(
                f"{self._called} holds {format_bytes(budget)} instead of the {format_bytes(size)} "
                f"asked for: {self._advice()}."
            )

    def warn_of_troubles(self) -> None:
        """A UserWarning, once each: the arena stopped growing before its budget was full; it holds
        damaged items."""
        stats = self.stats()
        if stats["damaged_items"] and not self._warned_damage:
            self._warned_damage = True
            warn_user(
                f"{self._called} holds items that are not as they were admitted "
                f"({stats['damaged_items']:,} met so far). They are read anew from where they came "
                f"from; their space comes back with coordl clear {self.name}{self._option}."
            )
        if stats["stopped_errno"] and not self._warned_stop:
            self._warned_stop = True
            short = "memory" if self.directory is None else "the disk"
            warn_user(
                f"{self._called} stopped growing at {format_bytes(stats['used_bytes'])} of "
                f"{format_bytes(stats['budget_bytes'])}, as {short} became short: "
                f"{self._advice()}. What it holds stays, and the next open lets it grow again."
            )

    @property
    def _option(self) -> str:
        return "" if self.directory is None else f" --ssd {self.directory}"

    @property
    def _called(self) -> str:
        where = "" if self.directory is None else f" in {self.directory}"
        return f"cache {self.name}{where}"

    def _advice(self) -> str:
        if self.directory is not None:
            disk = os.statvfs(self.directory)
            return (
                f"its file system has {format_bytes(disk.f_bavail * disk.f_frsize)} free; make "
                "room, or give a smaller ssd_budget"
            )
        return limit_advice()


def limit_advice() -> str:
    """What limits memory for arenas here, and how to have more."""
    limits = _native.memory_limits()
    limit = str(limits["limit"])
    free = limits.get(f"{limit}_free_bytes")
    return _LIMITS[limit].format(
        directory=_native.arena_directory(), free=format_bytes(free) if free is not None else "?"
    )
