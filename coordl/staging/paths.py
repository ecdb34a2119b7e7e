"""The samples of a large image folder for worker processes: arrays in shared memory, not objects.

A list of a million (path, target) pairs grows in every forked worker: to read one is to write its
reference count, and the page it is on is copied. Spawned workers have a copy each from the start.
Arrays are shared by all and never written to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch.utils.data

from coordl import _native
from coordl.fetch.folder import Folder, ListedFiles, find_folder
from coordl.fetch.objects import Objects
from coordl.fetch.source import CachedFolder
from coordl.staging.slots import SlotName, memory_file

# Below it the lists are small beside a worker itself.
WORTH_IT = 50_000


class SampleList(Sequence):
    """(path, target) pairs, as a list of them is read; targets are int64."""

    def __init__(self, name: SlotName, fd: int, count: int, owner: bool) -> None:
        """Takes the descriptor over where it is the owner's."""
        self._name, self._fd, self._count = name, fd, count
        self._owner = os.getpid() if owner else 0
        mapping = _native.SharedMapping(fd, os.fstat(fd).st_size)
        mapping.inherit(True)
        array = mapping.array()
        self._targets = array[: 8 * count].view(np.int64)
        self._ends = array[8 * count : 16 * count].view(np.int64)
        self._text = array[16 * count :]

    @classmethod
    def of(cls, samples: Sequence[tuple[str, int]]) -> SampleList:
        """Raises OSError where there is no memory, TypeError and OverflowError where samples are of
        another kind."""
        names = [os.fsencode(path) for path, _ in samples]
        count = len(names)
        targets = np.fromiter((_integer(target) for _, target in samples), np.int64, count)
        ends = np.cumsum(np.fromiter(map(len, names), np.int64, count))
        fd = memory_file("coordl-samples")
        try:
            os.posix_fallocate(fd, 0, 16 * count + int(ends[-1] if count else 0) + 1)
            made = cls(SlotName(0, fd, os.fstat(fd).st_ino, once=False), fd, count, owner=True)
        except OSError:
            os.close(fd)
            raise
        made._targets[:], made._ends[:] = targets, ends
        text = b"".join(names)
        made._text[: len(text)] = np.frombuffer(text, np.uint8)
        return made

    @property
    def paths(self) -> PathList:
        return PathList(self)

    def path(self, index: int) -> str:
        begin = self._ends[index - 1] if index else 0
        return os.fsdecode(self._text[begin : self._ends[index]].tobytes())

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        row = _row(index, self._count)
        return self.path(row), int(self._targets[row])

    def __reduce__(self) -> tuple[Any, ...]:
        if self._owner != os.getpid():
            return SampleList.of, (list(self),)
        return _attach, (self._owner, self._name, self._count)

    def __del__(self) -> None:
        if getattr(self, "_owner", 0):
            os.close(self._fd)


class PathList(Sequence):
    """The paths of a SampleList."""

    def __init__(self, samples: SampleList) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.samples.path(_row(index, len(self)))


def _attach(owner: int, name: SlotName, count: int) -> SampleList:
    fd = name.open(owner)
    try:
        return SampleList(name, fd, count, owner=False)
    finally:
        os.close(fd)


def _row(index: Any, count: int) -> int:
    row: int = index.__index__()
    if not -count <= row < count:
        raise IndexError("list index out of range")
    return row + count if row < 0 else row


def _integer(target: Any) -> int:
    if type(target) is not int:
        raise TypeError(f"targets are int here, got {type(target).__name__}")
    return target


class SharedSamples:
    """Of one loader: the list of its folder's samples, made anew only where that has changed."""

    def __init__(self) -> None:
        self._of: list[Any] = []
        self._shared: SampleList | None = None

    def view(self, dataset: Any) -> Any:
        """The data set for workers: the same samples by index. Itself where it is small or no
        folder coordl knows, or where there is no memory for it."""
        if isinstance(dataset, CachedFolder):
            folder, rest = dataset.folder, dataset.items
            shared = self._samples(folder)
            if shared is None:
                return dataset
            inner = replace(folder, dataset=_seen(folder.dataset, shared))
            reader = rest.reader
            if isinstance(reader, Objects):
                reader = reader.named_by(shared.paths)
            items = replace(rest, paths=shared.paths, reader=reader)
            return _copied(dataset, folder=inner, items=items)
        found = find_folder(dataset)
        shared = None if isinstance(found, str) else self._samples(found)
        return dataset if shared is None else _through_subsets(dataset, shared)

    def _samples(self, folder: Folder) -> SampleList | None:
        if type(folder) not in (
            Folder,
            ListedFiles,
        ):  # the others keep arrays, or more beside each path
            return None
        samples = folder.dataset.samples
        if type(samples) is not list or len(samples) < WORTH_IT:
            return None
        if self._shared is None or self._of != samples:
            try:
                self._shared, self._of = SampleList.of(samples), list(samples)
            except (OSError, TypeError, ValueError, OverflowError):
                self._shared, self._of = None, []
        return self._shared


def _through_subsets(dataset: Any, samples: SampleList) -> Any:
    if type(dataset) is not torch.utils.data.Subset:
        return _seen(dataset, samples)
    return _copied(
        dataset,
        dataset=_through_subsets(dataset.dataset, samples),
        indices=np.asarray(dataset.indices, dtype=np.int64),
    )


def _seen(dataset: Any, samples: SampleList) -> Any:
    others: dict[str, Any] = {"samples": samples, "imgs": samples, "targets": samples._targets}
    if isinstance(objects := getattr(dataset, "objects", None), Objects):
        others["objects"] = objects.named_by(samples.paths)
    return _copied(dataset, **others)


def _copied(thing: Any, **others: Any) -> Any:
    """A shallow copy with other attributes, past whatever copying means to its class."""
    made = object.__new__(type(thing))
    made.__dict__.update({**vars(thing), **others})
    return made
