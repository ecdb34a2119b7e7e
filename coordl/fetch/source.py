"""The items of an image folder and the cache they share, for native threads and for Python."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.utils.data

from coordl import _native
from coordl.errors import ItemError, item_error
from coordl.fetch.budget import format_bytes
from coordl.fetch.cache import FORMS, MinIOCache
from coordl.fetch.folder import Folder
from coordl.fetch.item import Items, Source, identify
from coordl.fetch.storage import fetch
from coordl.peers.asking import Asking, OwnersCache
from coordl.sources.image_folder import open_item

_STAT_THREADS = 16


@dataclass(frozen=True)
class FolderItems:
    """The files of an image folder as they were when last looked at.

    Attributes:
        source: the paths, or who knows the parts of shards.
        items: paths, and with a cache their sizes, times and keys (zeros where a file could not
            be looked at: it fails when its turn comes). Without a cache nobody asks the file
            system, and they are zeros throughout.
        table: the same for native threads.
        cache: None without one.
        asking: where other servers share theirs, for Python's samples.
    """

    source: Source
    items: Items
    table: _native.ItemTable
    cache: MinIOCache | None
    asking: Asking | None = None

    @classmethod
    def of(cls, source: Source, identified: bool, cache: MinIOCache | None) -> FolderItems:
        if not isinstance(source, list):
            items = source.items(keyed=identified)
        else:
            items = _identify(source) if identified else _unidentified(source)
        return cls(source, items, _table(items), cache)

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


def _unidentified(paths: list[str]) -> Items:
    zeros = np.zeros(len(paths), np.int64)
    return Items(paths, zeros, zeros, np.zeros((len(paths), 2), np.uint64))


def _identify(paths: list[str]) -> Items:
    try:
        return identify(paths, threads=_STAT_THREADS)
    except ItemError:  # some file is not there: that is for the epoch to say, at its place
        errnos = _native.stat_files(paths, _STAT_THREADS)[2]
    good = np.flatnonzero(errnos == 0)
    found = identify([paths[row] for row in good], threads=_STAT_THREADS)
    items = _unidentified(paths)
    sizes, mtimes_ns = items.sizes.copy(), items.mtimes_ns.copy()
    sizes[good], mtimes_ns[good], items.keys[good] = found.sizes, found.mtimes_ns, found.keys
    return Items(paths, sizes, mtimes_ns, items.keys)


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
    """

    def __init__(self, folder: Folder, files: FolderItems) -> None:
        self.folder = folder
        self.items = files.items
        self.cache = files.cache
        self.asking = files.asking
        self._counters = _zeros()

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

    def _opened(self, data: bytes | memoryview, index: int) -> Any:
        return open_item(data)

    def _transformed(self, picture: Any) -> Any:
        transform = self.folder.dataset.transform
        return picture if transform is None else transform(picture)

    def _fetch(self, row: int) -> bytes | memoryview:
        now, key = self._counters, self.items.keys[row]
        held = None if self.cache is None else self.cache.get(key)
        if held is not None:
            now["hits"] += 1
            now["ssd_hits"] += self.cache is not None and self.cache.lies_on_ssd(key)
            return held
        start = time.perf_counter()
        cache: Any = self.cache
        if self.asking is not None and (owner := self.asking.owner(key)) is not None:
            given = self.asking.get(owner, key, int(self.items.sizes[row]))
            if given is not None:
                now["remote_hits"] += 1
                now["remote_bytes"] += len(given)
                now["fetch_s"] += time.perf_counter() - start
                return given
            cache = OwnersCache(self.asking, owner)
        now["misses"] += 1
        data = fetch(self.items, row, cache)
        now["storage_bytes"] += len(data)
        if self.cache is not None and self.cache.get(key) is not None:
            now["admitted_bytes"] += len(data)
        now["fetch_s"] += time.perf_counter() - start
        return data

    def counters(self) -> dict[str, Any]:
        """Reads of this process since reset_counters()."""
        return {**self._counters, "prep_s": None}

    def reset_counters(self) -> None:
        self._counters = _zeros()


class CachedSamples(CachedFolder):
    """The same for data sets that make a whole sample of its item's bytes, by their sample()."""

    def __getitem__(self, index: int) -> Any:
        indices, rows = self.folder.positions([index])
        return self.folder.dataset.sample(int(rows[0]), int(indices[0]), self._fetch)


def cached(folder: Folder, files: FolderItems) -> CachedFolder:
    """The data set with its reads through the cache."""
    return (CachedSamples if folder.python else CachedFolder)(folder, files)


def _zeros() -> dict[str, Any]:
    counts = ["hits", "ssd_hits", "remote_hits", "remote_bytes"]
    counts += ["misses", "storage_bytes", "admitted_bytes"]
    return {**dict.fromkeys(counts, 0), "fetch_s": 0.0}
