"""The MinIO cache: shared memory that admits items until its budget is full, and never evicts.

Every process of this user that opens the same name shares one arena. It is there as long as one of
them lives, or until `coordl clear` with persist=True; the last to leave removes it, and what a
killed one leaves is reaped by the next open.
docs/shared-memory.md has the layout and the protocol.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Any, SupportsIndex

from coordl import _native
from coordl.errors import CacheError
from coordl.fetch.budget import auto_budget, format_bytes, is_auto, parse_budget
from coordl.user_warning import warn_user

_MEAN_ITEM_BYTES = 8192  # small for an image: an index with room to spare costs 0.2 % of the budget
_LEAST_BYTES = 1 << 20  # as native/fetch has it: less is no cache
# What holding every item takes at most, all of them packed, in bytes of the files. The same for
# every form: loaders of several forms share one arena, and its budget.
_MOST_OF_FILES = 1.8
_MOST_OF_INDEX = 0.9  # of its slots; beyond, items are refused for want of a near one
FORMS = ("original", "indexed", "packed")
_OURS = {errno.ENOSPC, errno.ENOMEM, errno.EPROTO, errno.EUSERS, errno.ETIMEDOUT, errno.EAGAIN}
_LIMITS = {
    "shm": "{directory} has {free} free; make it larger (mount -o remount,size=..., or docker run "
    "--shm-size=...), or clear other arenas (coordl status)",
    "cgroup": "the memory cgroup leaves {free}; raise the container's or job's memory limit "
    "(docker run --memory=..., sbatch --mem=...)",
    "memory": "the machine has {free} of memory available; end other jobs or ask for less",
    "none": "run coordl doctor",
}


def cache_name(source: str | os.PathLike[str] | Iterable[str]) -> str:
    """The arena's name for a data set: same source, same name, in every job of this user.

    Args:
        source: the data set's root folder (links resolved), or its list of files.
    """
    if isinstance(source, str | os.PathLike):
        return blake2b(os.fsencode(os.path.realpath(source)), digest_size=12).hexdigest()
    digest = blake2b(digest_size=12, person=b"files")
    for path in source:
        digest.update(os.fsencode(os.path.abspath(path)) + b"\0")
    return digest.hexdigest()


def check_form(form: str, name: str = "form") -> None:
    """Raises ValueError, calling the argument `name`, unless it is a form of items or "auto"."""
    if form not in (*FORMS, "auto"):
        known = ", ".join(repr(each) for each in (*FORMS, "auto"))
        raise ValueError(f"{name}={form!r} is unknown: use {known}")


class MinIOCache:
    """A never-evict cache in shared memory; threads, forked and spawned processes share it.

    Picklable: a spawned worker opens the same arena by name. A forked child goes on using it and
    takes a lease of its own on first use.

    Args:
        budget: bytes it may hold, see parse_budget; never more than all items take in any form,
            1.8 times `dataset_bytes` (see budget_limit()). "auto" takes what the machine's limits
            allow now, see auto_budget, or the budget the arena has already where another process
            made it: it raises none.
        name: which arena; cache_name() makes one from a data set.
        dataset_bytes: encoded bytes of the data set, if known; a percentage needs it.
        expected_items: how many items, if known; sizes the index.
        form: how native prep holds JPEGs; same pixels in all. "original": the files' bytes.
            "packed": their coefficients without entropy code, a third larger and several times
            faster to prepare. "indexed": with points to begin decoding at, a few percent larger and
            somewhat faster. "auto": whichever makes epochs shortest at this budget and the rates
            measured so far.
        persist: the arena stays after its last user, for the next job to find it full, until
            `coordl clear` or the machine's end. Whoever asks for it keeps it for all.

    One arena has one budget, the largest asked for so far: a larger one raises it for all its
    users, a smaller one changes nothing.

    Warns:
        UserWarning: the machine or the arena's address space does not allow that much, the index is
            too small for that many items, or a larger budget applies already. The message says what
            to change.

    Raises:
        CacheError: no usable cache can be had; says what to change.
        ValueError: a bad budget or name.
        OSError: a file in the way belongs to someone else or is a link.
    """

    def __init__(
        self,
        budget: SupportsIndex | str,
        *,
        name: str,
        dataset_bytes: int | None = None,
        expected_items: int | None = None,
        form: str = "auto",
        persist: bool = False,
    ) -> None:
        check_form(form)
        why = ""
        if is_auto(budget):
            size, why = auto_budget(_native.memory_limits())
            if size < _LEAST_BYTES:
                raise CacheError(
                    f"cache='auto': memory here allows {format_bytes(size)}, too little for a "
                    f"cache: {_limit_advice()}."
                )
        else:
            size = parse_budget(budget, dataset_bytes)
        wanted, most = size, int(_MOST_OF_FILES * (dataset_bytes or 0))
        if dataset_bytes:
            size = min(size, most)
        self.form = form
        self._why = why
        self._cut = size < wanted
        self.persist = bool(persist)
        self._open(name, size, expected_items or max(1024, size // _MEAN_ITEM_BYTES))
        self._warn_if_other_than_asked(expected_items or 0)

    def _open(self, name: str, size: int, expected_items: int) -> None:
        self.name = name
        self._asked_bytes = size
        self._expected_items = expected_items
        self._warned_stop = False
        try:
            self._arena = _native.Arena.open(
                name, size, expected_items, persist=self.persist, raise_budget=not self._why
            )
        except OSError as error:
            text = error.strerror or str(error)
            if error.errno == errno.EINVAL:
                raise ValueError(text) from error
            if error.errno in _OURS:
                raise CacheError(text) from error
            raise

    def get(self, key: Sequence[int] | Any) -> memoryview | None:
        """The item as a read-only view, or None. No copy, no lock; valid as long as the view lives.

        Args:
            key: (high, low) halves of its 128-bit key, e.g. a row of Items.keys.
        """
        high, low = key
        return self._arena.find(int(high), int(low))

    def admit(self, key: Sequence[int] | Any, data: bytes | bytearray | memoryview) -> bool:
        """Copies an item in. False when it does not fit any more; True when it is held now."""
        high, low = key
        held = self._arena.admit(int(high), int(low), data)
        if not held and not self._warned_stop:
            self._warn_if_stopped()
        return held

    @property
    def arena(self) -> _native.Arena:
        """The native arena, for native prep."""
        return self._arena

    @property
    def budget_bytes(self) -> int:
        """What the arena may hold; less than asked when the machine allows less."""
        return int(self.stats()["budget_bytes"])

    def budget_limit(self) -> str:
        """What made the budget in force another than the one asked for here, or what "auto" was
        chosen from, for reading; empty where a size asked for is in force."""
        stats = self.stats()
        if stats["asked_bytes"] != self._asked_bytes:
            return "another user asked for that"
        if stats["budget_bytes"] < stats["asked_bytes"]:
            return "the machine allows no more"
        return "holding every item takes no more" if self._cut else self._why

    def stats(self) -> dict[str, int]:
        """budget_bytes, asked_bytes (the most that was asked for), most_bytes (budgets its address
        space has room for), used_bytes, held_bytes (with what is being admitted), reserved_bytes
        (memory taken, overhead included), items, index_slots, users (live processes), persist (0 or
        1), stopped_errno (what ended growth early, or 0); original_items, original_bytes and so on
        for each form."""
        return dict(self._arena.stats())

    def verify(self) -> list[str]:
        """Re-checks every item's checksum; one line per fault."""
        return list(self._arena.verify())

    def close(self) -> None:
        """Ends this object's use. Views stay readable; get() then misses. May be called again."""
        self._arena.close()

    def __enter__(self) -> MinIOCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> tuple:
        described = self.form, self.persist, self._cut, self._why
        return self.name, self._asked_bytes, self._expected_items, *described

    def __setstate__(self, state: tuple) -> None:
        name, size, expected_items, self.form, self.persist, self._cut, self._why = state
        self._open(name, size, expected_items)  # quietly: who opened it first has been told

    def __repr__(self) -> str:
        stats, limit = self.stats(), self.budget_limit()
        return (
            f"MinIOCache({self.name!r}: {format_bytes(stats['used_bytes'])} of "
            f"{format_bytes(stats['budget_bytes'])}{limit and f', as {limit}'}, "
            f"{stats['items']} items)"
        )

    def _warn_if_other_than_asked(self, items: int) -> None:
        stats = self.stats()
        anew = f"End its users, then coordl clear {self.name}, and the next makes it anew."
        room = stats["index_slots"] * _MOST_OF_INDEX
        if items > room:
            warn_user(
                f"cache {self.name} was made with an index for {room:,.0f} items, and "
                f"{items:,} are expected here: those beyond are not held. {anew}"
            )
        budget, size = stats["budget_bytes"], self._asked_bytes
        if self._why and size != stats["asked_bytes"]:
            return  # no size was insisted on
        if size < budget:
            warn_user(
                f"cache {self.name} has a budget of {format_bytes(budget)} already; the "
                f"{format_bytes(size)} asked for here do not apply. One arena has one budget: the "
                "largest asked for so far."
            )
        elif budget < size and budget >= stats["most_bytes"]:
            warn_user(
                f"cache {self.name} holds {format_bytes(budget)} instead of the "
                f"{format_bytes(size)} asked for: it was made with address space for no more. "
                f"{anew}"
            )
        elif budget < size:
            warn_user(
                f"cache {self.name} holds {format_bytes(budget)} instead of the "
                f"{format_bytes(size)} asked for: {_limit_advice()}."
            )

    def _warn_if_stopped(self) -> None:
        stats = self.stats()
        if stats["stopped_errno"]:
            self._warned_stop = True
            warn_user(
                f"cache {self.name} stopped growing at {format_bytes(stats['used_bytes'])} of "
                f"{format_bytes(stats['budget_bytes'])}, as memory became short: "
                f"{_limit_advice()}. What it holds stays, and the next open lets it grow again."
            )


def _limit_advice() -> str:
    limits = _native.memory_limits()
    limit = str(limits["limit"])
    free = limits.get(f"{limit}_free_bytes")
    return _LIMITS[limit].format(
        directory=_native.arena_directory(), free=format_bytes(free) if free is not None else "?"
    )
