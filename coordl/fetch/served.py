"""Data sets whose opens are served from a cache: the user's own, entered around each sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch.utils.data

from coordl.fetch.admission import check_first_come
from coordl.fetch.cache import MinIOCache, cache_name
from coordl.fetch.opens import COUNTED, Opens
from coordl.fetch.tally import Tally


class ServedDataset(torch.utils.data.Dataset):
    """A map-style data set as it is, but for where its opens are answered from."""

    def __init__(self, dataset: Any, opens: Opens) -> None:
        self.dataset = dataset
        self.opens = opens

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        with self.opens:
            return self.dataset[index]


class ServedBatches(ServedDataset):
    """The same for one that makes several samples at once."""

    def __getitems__(self, indices: list[Any]) -> Any:
        with self.opens:
            return self.dataset.__getitems__(indices)


class ServedIterable(torch.utils.data.IterableDataset):
    """The same for an iterable one."""

    def __init__(self, dataset: Any, opens: Opens) -> None:
        self.dataset = dataset
        self.opens = opens

    def __iter__(self) -> Iterator[Any]:
        with self.opens:
            return ServedIterator(iter(self.dataset), self.opens)


class ServedIterator:
    """Its iterator, served while it makes a sample; not while the consumer has it."""

    def __init__(self, iterator: Iterator[Any], opens: Opens) -> None:
        self.iterator = iterator
        self.opens = opens

    def __iter__(self) -> ServedIterator:
        return self

    def __next__(self) -> Any:
        with self.opens:
            return next(self.iterator)


class OpenCounters:
    """What the opens of one pass came to, in this process and its workers."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self.reset_counters()

    def reset_counters(self) -> None:
        self._base = self._tally.totals()

    def counters(self) -> dict[str, Any]:
        now = self._tally.totals()
        counts: dict[str, Any] = {name: now[name] - self._base[name] for name in COUNTED}
        counts["fetch_s"] = counts.pop("fetch_ns") / 1e9
        return counts


def serve_opens(dataset: Any, opens: Opens) -> Any:
    """The data set with its opens served, of the same kind: iterable, in batches or by sample."""
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return ServedIterable(dataset, opens)
    batches = getattr(dataset, "__getitems__", None)
    return ServedBatches(dataset, opens) if batches else ServedDataset(dataset, opens)


def opens_folder(dataset: Any, asked: bool | str | os.PathLike[str]) -> str:
    """The folder whose files a data set's opens are served of: the one named, or its root.

    Raises:
        ValueError: none is named and the data set has no `root`.
        FileNotFoundError: there is no such folder.
    """
    folder: Any = asked
    if asked is True:
        while type(dataset) is torch.utils.data.Subset:
            dataset = dataset.dataset
        folder = getattr(dataset, "root", None)
        if not isinstance(folder, str | os.PathLike):
            raise ValueError(
                f"cache_opens=True: the data set, a {type(dataset).__qualname__}, has no `root` "
                "that says where its files are; name their folder, as cache_opens='/data/train'"
            )
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"cache_opens: there is no folder {os.fspath(folder)!r}")
    return str(os.fspath(folder))


def opens_cache(cache: int | str | MinIOCache, folder: str) -> MinIOCache:
    """The cache of a folder's files: the one given, or the arena all its readers share."""
    if not isinstance(cache, MinIOCache):
        cache = MinIOCache(cache, form="original")
    check_first_come(cache.admission, "cache_opens")
    if not cache.is_open:
        cache.open_for(cache_name(folder), *_folder_size(folder))
    return cache


def _folder_size(folder: str) -> tuple[int, int]:
    """Bytes and number of the files below it."""
    total = files = 0
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:  # a link to nothing
                continue
            files += 1
    return max(1, total), files
