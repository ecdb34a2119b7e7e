"""The MinIO cache: shared memory that admits items until its budget is full, and never evicts.

Every process of this user that opens the same name shares one arena. It is there as long as one of
them lives, or until `coordl clear` with persist=True; the last to leave removes it, and what a
killed one leaves is reaped by the next open.
docs/shared-memory.md has the layout and the protocol.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex

from coordl import _native
from coordl.errors import CacheError
from coordl.fetch.admission import admission_limit, check_policy
from coordl.fetch.budget import auto_budget, format_bytes, is_auto, parse_budget
from coordl.fetch.item import Items
from coordl.fetch.tier import Tier, limit_advice
from coordl.user_warning import warn_user

if TYPE_CHECKING:
    from coordl.fetch.warm import Warmed

_MEAN_ITEM_BYTES = 8192  # small for an image: an index with room to spare costs 0.2 % of the budget
_NO_SIZE_BYTES = 512  # whoever asks for less meant another unit
_LEAST_BYTES = 1 << 20  # as native/fetch has it: less is no cache
# What holding every item takes at most, all of them packed, in bytes of the files. The same for
# every form: loaders of several forms share one arena, and its budget.
_MOST_OF_FILES = 1.8
FORMS = ("original", "indexed", "packed")


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

    With `ssd`, a second tier on a local disk: an item goes to memory until that is full, then to
    the disk, and lives in one of them. What the disk holds serves later runs as well.

    Picklable: a spawned worker opens the same arenas by name. A forked child goes on using them and
    takes leases of its own on first use.

    Args:
        budget: bytes memory may hold, see parse_budget; never more than all items take in any form,
            1.8 times `dataset_bytes` (see budget_limit()). "auto" takes what the machine's limits
            allow now, see auto_budget, or the budget the arena has already where another process
            made it: it raises none. 0: nothing, only `ssd`.
        name: which arena; cache_name() makes one from a data set, which is the name by default. The
            cache is opened when a loader or warm() first uses it, or at once where it has a name
            and no percentage waits for a data set.
        dataset_bytes: encoded bytes of the data set, if known; a percentage needs it. A loader
            knows it.
        expected_items: how many items, if known; sizes the index.
        form: how native prep holds JPEGs; same pixels in all. "original": the files' bytes.
            "packed": their coefficients without entropy code, a third larger and several times
            faster to prepare. "indexed": with points to begin decoding at, a few percent larger and
            somewhat faster. "auto": whichever makes epochs shortest at this budget and the rates
            measured so far.
        admission: which items are held of a data set that does not fit. "first": as they come.
            "random": a subset chosen by `admission_seed` and the items' keys alone, as large as the
            budgets allow for the files as they are: the same in every process and every run.
        ssd: directory on a local disk, made where there is none.
        ssd_budget: bytes it may hold, as `budget`; "100%" by default.
        persist: the arena stays after its last user, for the next job to find it full, until
            `coordl clear` or the machine's end. Whoever asks for it keeps it for all.

    One arena has one budget, the largest asked for so far: a larger one raises it for all its
    users, a smaller one changes nothing.

    Warns:
        UserWarning: the machine or the arena's address space does not allow that much, the index is
            too small for that many items, or a larger budget applies already. The message says what
            to change.

    Raises:
        CacheError: no usable cache can be had, or not in `ssd`; says what to change.
        ValueError: a bad budget, name, form or admission.
        OSError: a file in the way belongs to someone else or is a link.
    """

    def __init__(
        self,
        budget: SupportsIndex | str,
        *,
        name: str | None = None,
        dataset_bytes: int | None = None,
        expected_items: int | None = None,
        form: str = "auto",
        admission: str = "first",
        admission_seed: int = 0,
        ssd: str | os.PathLike[str] | None = None,
        ssd_budget: SupportsIndex | str | None = None,
        persist: bool = False,
    ) -> None:
        check_form(form)
        check_policy(admission)
        self.form = form
        self.persist = bool(persist)
        self.admission = admission
        self.admission_seed = admission_seed
        self.ssd = None if ssd is None else os.path.abspath(os.fspath(ssd))
        if ssd is None and ssd_budget is not None:
            raise ValueError(f"ssd_budget={ssd_budget!r} needs ssd=, a directory on a local disk")
        self._budgets = budget, "100%" if ssd_budget is None else ssd_budget
        self._limit: int | None = None  # of admission numbers, once a data set is known
        self._chosen: tuple[Any, int] | None = None  # the items and budget that limit is for
        self.name = name or ""
        self._opened: tuple[str, int, int, int] | None = None
        self._sizes(1 << 60)  # wrong ones are told now
        relative = any(isinstance(each, str) and "%" in each for each in self._asked())
        if name is not None and (dataset_bytes is not None or not relative):
            self._open(name, dataset_bytes, expected_items)

    def _asked(self) -> tuple[SupportsIndex | str, ...]:
        return self._budgets[: 1 if self.ssd is None else 2]

    def _sizes(self, dataset_bytes: int | None) -> tuple[int, int]:
        """Bytes for memory and for the disk."""
        budget, ssd_budget = self._budgets
        memory, self._why = 0, ""
        if is_auto(budget):
            memory, self._why = auto_budget(_native.memory_limits())
            if memory < _LEAST_BYTES:
                raise CacheError(
                    f"cache='auto': memory here allows {format_bytes(memory)}, too little for a "
                    f"cache: {limit_advice()}."
                )
        elif self.ssd is None or type(budget) is not int or budget != 0:
            memory = parse_budget(budget, dataset_bytes)
        try:
            disk = 0 if self.ssd is None else parse_budget(ssd_budget, dataset_bytes)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("cache=", "ssd_budget=")) from None
        most = int(_MOST_OF_FILES * dataset_bytes) if dataset_bytes else max(memory, disk)
        if most < memory:
            self._why = "holding every item takes no more"
        return min(memory, most), min(disk, most)

    def _open(self, name: str, dataset_bytes: int | None, expected_items: int | None) -> None:
        memory, disk = self._sizes(dataset_bytes)
        items = expected_items or max(1024, (memory + disk) // _MEAN_ITEM_BYTES)
        if 0 < memory + disk < _NO_SIZE_BYTES:
            warn_user(
                f"a cache of {memory + disk} bytes holds hardly an item: sizes are bytes, or have "
                "a unit or a percent sign, as '20GiB' and '65%'."
            )
        self._open_tiers(name, memory, disk, items)
        for tier in self._tiers_open:
            tier.warn_if_other_than_asked(expected_items or 0)

    def _open_tiers(self, name: str, memory: int, disk: int, expected_items: int) -> None:
        self._memory = self._disk = None
        if memory:
            insisted = not is_auto(self._budgets[0])
            self._memory = Tier.open(
                name, memory, expected_items, persist=self.persist, insisted=insisted
            )
        try:
            if disk:
                self._disk = Tier.open(name, disk, expected_items, self.ssd)
        except BaseException:
            if self._memory is not None:
                self._memory.arena.close()
            raise
        self._tiers = _native.Tiers(
            None if self._memory is None else self._memory.arena,
            None if self._disk is None else self._disk.arena,
        )
        self.name = name
        self._opened = name, memory, disk, expected_items
        if self._limit is not None:
            self._tiers.choose(self.admission_seed, self._limit)

    @property
    def _tiers_open(self) -> list[Tier]:
        return [tier for tier in (self._memory, self._disk) if tier is not None]

    def open_for(self, name: str, dataset_bytes: int | None, items: int | None = None) -> None:
        """Opens the cache by its own name, else by that one, unless it is open."""
        if self._opened is None:
            self._open(self.name or name, dataset_bytes, items)

    def serve(self, name: str, items: Items) -> None:
        """Opens the cache as open_for(), and decides which of a data set's items
        it will hold. Loaders and warm() call it; who calls admit() without them and with
        admission="random" must."""
        self.open_for(name, items.total_bytes, len(items))
        budget = self.total_budget_bytes
        known, under = self._chosen or (None, 0)
        if self.admission != "random" or (known is items and under == budget):
            return
        numbers = _native.admission_numbers(self.admission_seed, items.keys)
        self._limit = admission_limit(numbers, items.sizes, budget)
        self._chosen = items, budget
        self._tiers.choose(self.admission_seed, self._limit)

    def get(self, key: Sequence[int] | Any) -> memoryview | None:
        """The item as a read-only view, or None. No copy, no lock; valid as long as the view lives.

        What is on the disk is read from there, and its bytes are checked when this process first
        meets them: damaged ones are a miss.

        Args:
            key: (high, low) halves of its 128-bit key, e.g. a row of Items.keys.
        """
        high, low = map(operator.index, key)
        return self.tiers.find(high, low)

    def admit(self, key: Sequence[int] | Any, data: bytes | bytearray | memoryview) -> bool:
        """Copies an item in. False when it is not chosen or does not fit any more; True when it is
        held now.

        Raises:
            ValueError: it is a damaged item of ours; or admission is "random" and nobody said, by
                serve(), among which items.
        """
        if self.admission == "random" and self._limit is None:
            raise ValueError(
                'admission="random" chooses among the items of a data set: call serve() first'
            )
        high, low = map(operator.index, key)
        held = self.tiers.admit(high, low, data)
        if not held:
            self.warn_of_troubles()
        return held

    def takes(self, key: Sequence[int] | Any, size: int) -> bool:
        """Whether admit() would take `size` bytes for that key."""
        high, low = map(operator.index, key)
        return self.tiers.takes(high, low, size)

    def holds(self, key: Sequence[int] | Any) -> bool:
        """Whether get() most likely finds it; nothing is read from the disk."""
        high, low = map(operator.index, key)
        return self.tiers.seems_held(high, low)

    def lies_on_ssd(self, key: Sequence[int] | Any) -> bool:
        """Whether the item's tier is the disk; most likely so, as only the index is asked."""
        high, low = map(operator.index, key)
        return self.tiers.seems_on_disk(high, low)

    @property
    def is_open(self) -> bool:
        """False while it waits for a data set to be named after."""
        return self._opened is not None

    @property
    def tiers(self) -> _native.Tiers:
        """The native tiers, for native prep."""
        if self._opened is None:
            raise CacheError(
                "the cache is not open yet: give it to a DataLoader, whose data set has a name and "
                "a size, or give it a name= and a size that is no percentage"
            )
        return self._tiers

    @property
    def arena(self) -> _native.Arena:
        """The native arena in memory."""
        return self._only_memory().arena

    def _only_memory(self) -> Tier:
        if self._opened is None or self._memory is None:
            raise CacheError("the cache has no tier in memory, or is not open yet")
        return self._memory

    @property
    def budget_bytes(self) -> int:
        """What memory may hold; less than asked when the machine allows less."""
        return int(self.stats()["budget_bytes"])

    def budget_limit(self) -> str:
        """What made memory's budget in force another than the one asked for here, or what "auto"
        was chosen from, for reading; empty where a size asked for is in force."""
        if self._memory is None:
            return ""
        stats = self.stats()
        if stats["asked_bytes"] != self._memory.asked_bytes:
            return "the largest asked for so far"
        if stats["budget_bytes"] < stats["asked_bytes"]:
            return "the machine allows no more"
        return self._why

    @property
    def total_budget_bytes(self) -> int:
        """Of all tiers."""
        self.tiers  # noqa: B018 - raises where there are none yet
        return sum(tier.stats()["budget_bytes"] for tier in self._tiers_open)

    @property
    def largest_budget_bytes(self) -> int:
        """Of the tier that may hold most: no item can be larger."""
        self.tiers  # noqa: B018
        return max(int(tier.stats()["budget_bytes"]) for tier in self._tiers_open)

    def has_room(self, size: int) -> bool:
        """Whether some tier has room for an item of `size` bytes now."""
        self.tiers  # noqa: B018
        return any(size <= tier.room_bytes() for tier in self._tiers_open)

    def stats(self) -> dict[str, Any]:
        """Of memory: budget_bytes, asked_bytes (the most that was asked for), most_bytes (budgets
        its address space has room for), used_bytes, held_bytes (with what is being admitted),
        reserved_bytes (memory taken, overhead included), items, index_slots, users (live
        processes), persist (0 or 1), stopped_errno (what ended growth early, or 0), damaged_items
        (of a kept arena, those this process met and did not take); original_items,
        original_bytes and so on for each form. Of the disk the same with "ssd_" before, and nothing
        without one. admission: the policy; chosen_share: of
        all keys, the part that "random" admits, or None."""
        self.tiers  # noqa: B018 - raises where there is nothing to tell
        figures: dict[str, Any] = {}
        if self._disk is not None:
            figures = {f"ssd_{name}": value for name, value in self._disk.stats().items()}
            if self._memory is None:
                figures.update({name: 0 for name in self._disk.stats()})
        if self._memory is not None:
            figures.update(self._memory.stats())
        figures["admission"] = self.admission
        figures["chosen_share"] = None if self._limit is None else (self._limit + 1) / 2**64
        return figures

    def verify(self) -> list[str]:
        """Re-checks every item's checksum, in all tiers; one line per fault."""
        self.tiers  # noqa: B018
        return [fault for tier in self._tiers_open for fault in tier.arena.verify()]

    def warm(
        self,
        dataset: Any,
        *,
        workers: int = 16,
        tell: Callable[[int, int], None] = lambda items, size: None,
    ) -> Warmed:
        """Reads an image folder into the cache until it is full, as a first epoch would.

        The arena in memory lives only while somebody uses it: keep this object until the loader
        has it. Stopping (Ctrl-C) leaves what was admitted, whole.

        Args:
            dataset: what a DataLoader would get: one of the data sets coordl knows, or a Subset.
            workers: threads that read and rewrite.
            tell: called with items and bytes done since it was last called, from any thread.

        Raises:
            ValueError: it is no such data set; says why.
        """
        from coordl.fetch.warm import Warming

        return Warming(self, dataset).run(workers, tell)

    def close(self) -> None:
        """Ends this object's use. Views stay readable; get() then misses. May be called again."""
        if self._opened is not None:
            for tier in self._tiers_open:
                tier.arena.close()

    def __enter__(self) -> MinIOCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        live = ("_memory", "_disk", "_tiers", "_chosen")
        return {name: value for name, value in self.__dict__.items() if name not in live}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._chosen = None
        if self._opened is not None:
            self._open_tiers(*self._opened)  # quietly: who opened it first has been told

    def __repr__(self) -> str:
        if self._opened is None:
            return f"MinIOCache({self._budgets[0]!r}, not open yet)"
        stats = self.stats()
        ssd = "" if self._disk is None else f"; {format_bytes(stats['ssd_used_bytes'])} on disk"
        limit = self.budget_limit()
        return (
            f"MinIOCache({self.name!r}: {format_bytes(stats['used_bytes'])} of "
            f"{format_bytes(stats['budget_bytes'])}{limit and f', as {limit}'}, "
            f"{stats['items']} items{ssd})"
        )

    def __str__(self) -> str:
        ssd = "" if self.ssd is None else f", then {self._budgets[1]} in {self.ssd}"
        return f"{_shown(self._budgets[0])}{ssd}"

    def warn_of_troubles(self) -> None:
        """UserWarnings, once a tier, where growth ended before the budget was full, and where it
        holds damaged items."""
        for tier in self._tiers_open:
            tier.warn_of_troubles()


def _shown(budget: SupportsIndex | str) -> str:
    return budget if isinstance(budget, str) else format_bytes(int(budget))
