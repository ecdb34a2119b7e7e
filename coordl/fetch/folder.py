"""Image folders coordl knows: which file is sample i, without calling the data set.

Known are torchvision's ImageFolder and DatasetFolder and our own ImageFolder, by exact type: a
subclass may do anything in `__getitem__`, so it is left to run as it is. torchvision is never
imported for this. `torch.utils.data.Subset`s of those count as well.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.utils.data

from coordl import _native
from coordl.datasets import ImageFolder, PackedFolder, open_rgb
from coordl.fetch.shards import PackedData, shard_name

_TORCHVISION = "torchvision.datasets.folder"
_EXTENSIONS = {"jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": (".png",), "webp": (".webp",)}


@dataclass(frozen=True)
class Folder:
    """An image folder, of files or packed, possibly seen through subsets.

    Attributes:
        dataset: the ImageFolder or PackedFolder itself.
        rows: positions in `dataset.samples` by position in the loader's data set, int64;
            None when they are the same.
        root: its root folder, absolute and without links: what names its cache.
    """

    dataset: Any
    rows: np.ndarray | None
    root: str

    def __len__(self) -> int:
        return len(self.dataset.samples) if self.rows is None else len(self.rows)

    def positions(self, indices: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
        """(indices, rows), int64: negative indices count from the end, as lists have it.

        Raises:
            IndexError: an index is beyond the data set.
        """
        count = len(self)
        asked = np.asarray(indices) if type(indices) is list else np.empty(0)
        if asked.dtype != np.int64:  # tensors, NumPy numbers, whatever has __index__
            asked = np.fromiter((operator.index(i) for i in indices), np.int64)
        if len(asked) and (asked.min() < 0 or asked.max() >= count):
            wrong = (asked < -count) | (asked >= count)
            if wrong.any():
                raise IndexError(f"the sampler asked for sample {asked[wrong][0]} of {count}")
            asked = np.where(asked < 0, asked + count, asked)
        return asked, asked if self.rows is None else self.rows[asked]

    @property
    def packed(self) -> bool:
        return type(self.dataset) is PackedFolder

    def source(self) -> list[str] | PackedData:
        """Where the items are: the file of each, or shards."""
        if self.packed:
            return self.dataset.packed  # type: ignore[no-any-return]
        return [sample[0] for sample in self.dataset.samples]

    def name(self, row: Any) -> str:
        """What to call an item: the path of its (original) file."""
        return str(self.dataset.samples[row][0])

    def path(self, row: Any) -> str:
        """The file that is opened for an item."""
        if not self.packed:
            return self.name(row)
        return os.path.join(
            self.dataset.root, shard_name(int(self.dataset.packed.index.shards[row]))
        )

    def native_share(self) -> float:
        """Share of files whose name says a format the native pass decodes; of some 4,096 of them
        where there are more."""
        ours = tuple(end for name in _native.formats() for end in _EXTENSIONS[name])
        samples = self.dataset.samples
        samples = samples[:: max(1, len(samples) // 4096)]
        named = sum(1 for sample in samples if sample[0].lower().endswith(ours))
        return float(named / max(1, len(samples)))


def find_folder(dataset: Any) -> Folder | str:
    """The folder a data set is, or why it is none coordl knows."""
    subsets: list[Any] = []  # outermost first; what they hold is read once it is known to be files
    while type(dataset) is torch.utils.data.Subset:
        subsets.append(dataset.indices)
        dataset = dataset.dataset
    name = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    torchvisions = (f"{_TORCHVISION}.ImageFolder", f"{_TORCHVISION}.DatasetFolder")
    packed = type(dataset) is PackedFolder
    if type(dataset) is not ImageFolder and not packed and name not in torchvisions:
        return (
            f"the data set is a {name}; coordl reads files itself for torchvision's ImageFolder "
            "and DatasetFolder, coordl.ImageFolder and PackedFolder, and Subsets of them"
        )
    if "__getitem__" in vars(dataset):
        return f"the {name} has a __getitem__ of its own"
    if not packed and not _is_stock_loader(dataset.loader):
        return f"its loader is {_name(dataset.loader)}, which may do anything with the file"
    try:
        rows = _rows_of(subsets)
    except (TypeError, ValueError, IndexError, OverflowError):
        return "a Subset's indices are no list of numbers, or beyond the Subset below it"
    if rows is not None and len(rows):
        count = len(dataset.samples)
        if rows.min() < -count or rows.max() >= count:
            return f"a Subset names samples beyond the {count} there are"
        rows = np.where(rows < 0, rows + count, rows)
    return Folder(dataset, rows, os.path.realpath(dataset.root))


def _rows_of(subsets: list[Any]) -> np.ndarray | None:
    """Positions in the data set below all subsets."""
    rows: np.ndarray | None = None
    for indices in subsets:
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (len(chosen) and chosen.dtype.kind not in "iub"):
            raise TypeError("not a list of integers")
        chosen = chosen.astype(np.int64)
        rows = chosen if rows is None else chosen[rows]
    return rows


def _is_stock_loader(loader: Any) -> bool:
    """True when it opens the file with Pillow and converts to RGB, nothing else."""
    if loader is open_rgb:
        return True
    name = getattr(loader, "__name__", "")
    if getattr(loader, "__module__", "") != _TORCHVISION:
        return False
    if name == "default_loader":  # Pillow, unless the user chose another backend
        torchvision = sys.modules.get("torchvision")
        backend = getattr(torchvision, "get_image_backend", lambda: "PIL")
        return bool(backend() == "PIL")
    return bool(name == "pil_loader")


def _name(thing: Any) -> str:
    kind = type(thing)
    return str(getattr(thing, "__qualname__", f"{kind.__module__}.{kind.__qualname__}"))
