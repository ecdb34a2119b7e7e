"""The items of an image folder and the cache they share, for native threads and for Python."""

from __future__ import annotations

import functools
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.utils.data

from coordl import _native
from coordl.errors import item_error
from coordl.fetch.ahead import ReadAhead
from coordl.fetch.budget import format_bytes
from coordl.fetch.cache import FORMS, MinIOCache
from coordl.fetch.folder import Folder
from coordl.fetch.item import Items, Source, identify_there, unidentified
from coordl.fetch.reads import Reads, SharedReads
from coordl.fetch.storage import fetch
from coordl.fetch.tally import Tally
from coordl.peers.asking import Asking, OwnersCache
from coordl.sources.image_folder import open_item

_STAT_THREADS = 16
_Fetched = tuple[bytes | memoryview, float, bool]  # seconds it took; whether another server gave it


@dataclass(frozen=True)
class FolderItems:
    """The files of an image folder as they were when last looked at.

    Attributes:
        source: the paths, or who knows the parts of shards.
        items: paths, and with a cache their sizes, times and keys (zeros where a file could not
            be looked at: it fails when its turn comes). Without a cache nobody asks the file
            system, and they are zeros throughout.
        cache: None without one.
        asking: where other servers share theirs, for Python's samples.
    """

    source: Source
    items: Items
    cache: MinIOCache | None
    asking: Asking | None = None

    @classmethod
    def of(cls, source: Source, identified: bool, cache: MinIOCache | None) -> FolderItems:
        if not isinstance(source, list):
            items = source.items(keyed=identified)
        else:
            items = identify_there(source) if identified else unidentified(source)
        return cls(source, items, cache)

    @functools.cached_property
    def table(self) -> _native.ItemTable:
        """The same for native threads."""
        return _table(self.items)

    @functools.cached_property
    def shares(self) -> Any:
        """The same, shared among servers: a peers.ownership.Shares."""
        from coordl.peers.ownership import Shares

        return Shares(self.items.keys, self.items.sizes)

    @property
    def tiers(self) -> Any:
        return None if self.cache is None else self.cache.tiers

    def with_cache(self, cache: MinIOCache) -> FolderItems:
        return replace(self, cache=cache)

    def renewed(self, source: Source) -> FolderItems:
        """These, or new ones where paths or files are others now. A changed file is a new item."""
        identified = self.cache is not None
        same = source == self.source if isinstance(source, list) else source is self.source
        if same and not (identified and _changed(self.items)):
            return self
        return FolderItems.of(source, identified, self.cache)


_FIGURES = (
    "cache_bytes",
    "cache_budget",
    "cache_limit",
    "cache_forms",
    "ssd_bytes",
    "ssd_budget",
    "admission",
)


def cache_figures(cache: MinIOCache | None) -> dict[str, Any]:
    """What a loader's stats() say of its cache; None throughout without one."""
    if cache is None:
        return dict.fromkeys(_FIGURES)
    stats = cache.stats()
    forms = {form: stats[f"{form}_items"] + stats.get(f"ssd_{form}_items", 0) for form in FORMS}
    values = (
        stats["used_bytes"],
        stats["budget_bytes"],
        cache.budget_limit(),
        forms,
        stats.get("ssd_used_bytes"),
        stats.get("ssd_budget_bytes"),
        stats["admission"],
    )
    return dict(zip(_FIGURES, values, strict=True))


def describe_cache(cache: MinIOCache | None) -> list[str]:
    """Lines for DataLoader.plan(): what the cache holds, and may hold, as it is now."""
    if cache is None:
        return []
    stats, limit = cache.stats(), cache.budget_limit()
    used, budget = stats["used_bytes"], stats["budget_bytes"]
    forms = [f"{stats[f'{form}_items']:,} {form}" for form in FORMS if stats[f"{form}_items"]]
    held = f"{stats['items']:,} items" + (f" ({', '.join(forms)})" if forms else "")
    lines = [
        f"  in force: {format_bytes(budget)}" + (f", as {limit}" if limit else ""),
        f"  held now: {format_bytes(used)}, {100 * used // max(1, budget)} %: {held}",
    ]
    if cache.ssd is not None:
        lines.append(
            f"  on disk: {format_bytes(stats['ssd_used_bytes'])} of "
            f"{format_bytes(stats['ssd_budget_bytes'])}: {stats['ssd_items']:,} items"
        )
    if stats["stopped_errno"]:
        lines.append("  grows no more: memory became short")
    return lines


def _table(items: Items) -> _native.ItemTable:
    parts = items.parts
    if parts is None:
        return _native.ItemTable(list(items.paths), items.sizes, items.mtimes_ns, items.keys)
    return _native.ItemTable.of_parts(
        list(parts.paths),
        parts.sizes,
        parts.mtimes_ns,
        parts.shards,
        parts.offsets,
        parts.lengths,
        parts.checksums,
        items.keys,
    )


def _changed(items: Items) -> bool:
    if items.reader is not None:  # a listing holds until the data set is made anew
        return False
    known = items if items.parts is None else items.parts
    sizes, mtimes_ns, errnos = _native.stat_files(known.paths, _STAT_THREADS)
    there = errnos == 0
    return not (
        np.array_equal(np.where(there, sizes, 0), known.sizes)
        and np.array_equal(np.where(there, mtimes_ns, 0), known.mtimes_ns)
    )


class CachedFolder(torch.utils.data.Dataset):
    """An image folder whose files are read through the cache, for Python transforms.

    Same samples as the folder itself gives; workers of any start method may use it.

    Args:
        tally: counts for this process and its workers together; None: each counts for itself.
    """

    def __init__(self, folder: Folder, files: FolderItems, tally: Tally | None = None) -> None:
        self.folder = folder
        self.items = files.items
        self.cache = files.cache
        self.asking = files.asking
        self.reads = Reads() if tally is None else SharedReads(tally)
        self._ahead: ReadAhead[_Fetched] = ReadAhead(self._at_once)

    @property
    def _at_once(self) -> int:
        """Reads at a time that are of use."""
        return 1 if self.items.reader is None else self.items.reader.threads

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        indices, rows = self.folder.positions([index])
        dataset, row, index = self.folder.dataset, int(rows[0]), int(indices[0])
        try:
            picture = self._opened(self._fetch(row), index)
            target = self.folder.target(row, self._fetch)
        except Exception as error:
            raise item_error(error, index, self.folder.name(row)) from error
        picture = self._transformed(picture)
        if dataset.target_transform is not None:
            target = dataset.target_transform(target)
        return picture, target

    def reading_ahead(self, indices: list[Any]) -> AbstractContextManager[None]:
        """Inside, what these samples lack comes from remote storage, many at a time; each fails
        when it is asked for. Files are read one by one: a disk has no such latency."""
        if self._at_once < 2:
            return nullcontext()
        try:
            rows = self.folder.positions(indices)[1].tolist()
        except (IndexError, TypeError):  # for whoever asks for that sample
            return nullcontext()
        missing = [row for row in rows if not self._holds(row)]
        return self._ahead.of(missing, self._timed_fetch)

    def _holds(self, row: int) -> bool:
        return self.cache is not None and self.cache.holds(self.items.keys[row])

    def _opened(self, data: bytes | memoryview, index: int) -> Any:
        return open_item(data)

    def _transformed(self, picture: Any) -> Any:
        transform = self.folder.dataset.transform
        return picture if transform is None else transform(picture)

    def _fetch(self, row: int) -> bytes | memoryview:
        key, coming = self.items.keys[row], self._ahead.take(row)
        held = None if self.cache is None or coming is not None else self.cache.get(key)
        if held is not None:
            assert self.cache is not None
            self.reads.hit(self.cache.lies_on_ssd(key))
            return held
        try:
            data, fetch_s, given = self._timed_fetch(row) if coming is None else coming.result()
        except BaseException:
            self.reads.add("misses", 1)
            raise
        if given:
            self.reads.given(len(data), fetch_s)
            return data
        self.reads.add("misses", 1)
        admitted = self.cache is not None and self.cache.holds(key)
        self.reads.read(len(data), admitted, fetch_s)
        return data

    def _timed_fetch(self, row: int) -> _Fetched:
        start, key = time.perf_counter(), self.items.keys[row]
        cache: Any = self.cache
        owner = self.asking.owner(key) if self.asking is not None and key.any() else None
        if self.asking is not None and owner is not None:
            given = self.asking.get(owner, key, int(self.items.sizes[row]))
            if given is not None:
                return given, time.perf_counter() - start, True
            cache = OwnersCache(self.asking, owner)
        data = fetch(self.items, row, cache)
        return data, time.perf_counter() - start, False

    def counts_all(self, workers: int) -> bool:
        """Whether its counters are those of all reads, with so many workers."""
        return workers == 0 or isinstance(self.reads, SharedReads)

    def counters(self) -> dict[str, Any]:
        """Reads since reset_counters()."""
        return {**self.reads.counters(), "prep_s": None}

    def reset_counters(self) -> None:
        self.reads.reset()


class CachedSamples(CachedFolder):
    """The same for data sets that make a whole sample of its item's bytes, by their sample()."""

    def __getitem__(self, index: int) -> Any:
        indices, rows = self.folder.positions([index])
        return self.folder.dataset.sample(int(rows[0]), int(indices[0]), self._fetch)


def cached(folder: Folder, files: FolderItems, tally: Tally | None = None) -> CachedFolder:
    """The data set with its reads through the cache."""
    return (CachedSamples if folder.python else CachedFolder)(folder, files, tally)
