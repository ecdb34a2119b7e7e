"""Data sets coordl knows: which bytes are sample i, without calling the data set.

Known are torchvision's ImageFolder and DatasetFolder and our own, by exact type: a subclass may do
anything in `__getitem__`, so it is left to run as it is. torchvision is never imported for this.
`torch.utils.data.Subset`s of those count as well.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch.utils.data

from coordl import _native
from coordl.fetch.cache import cache_name
from coordl.fetch.item import Source
from coordl.fetch.objects import Objects
from coordl.fetch.shards import shard_name
from coordl.sources.audio import AudioFolder
from coordl.sources.coco import CocoDetection
from coordl.sources.encoded import EncodedItems
from coordl.sources.huggingface import HuggingFaceAudio, HuggingFaceImages
from coordl.sources.image_folder import ImageFolder, PackedFolder, open_rgb
from coordl.sources.image_list import ImageList
from coordl.sources.tar_shards import TarShards

_TORCHVISION = "torchvision.datasets.folder"
_EXTENSIONS = {"jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": (".png",), "webp": (".webp",)}

_BEGINS = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG", "webp": b"RIFF"}


@dataclass(frozen=True)
class Folder:
    """An image folder, possibly seen through subsets; below, what is read like one.

    Attributes:
        dataset: the data set itself.
        rows: positions in `dataset` by position in the loader's data set, int64; None when they
            are the same.
    """

    dataset: Any
    rows: np.ndarray | None

    kind: ClassVar[str] = "files"
    form: ClassVar[str] = ""  # in which the items are already; empty for files as users have them
    reads: ClassVar[str] = ""  # why its items are read in Python only
    python: ClassVar[str] = ""  # why samples can be made in Python only; the data set has sample()

    def __len__(self) -> int:
        return len(self.dataset) if self.rows is None else len(self.rows)

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
    def objects(self) -> Objects | None:
        """Who reads its items, where they are in remote storage."""
        objects = getattr(self.dataset, "objects", None)
        return objects if isinstance(objects, Objects) else None

    @property
    def cache_name(self) -> str:
        """The arena all its readers share: named by its root folder, absolute, without links."""
        objects = self.objects
        return cache_name(self.dataset.root) if objects is None else objects.cache_name

    @property
    def reads_targets(self) -> bool:
        """Whether target() reads items besides the pictures."""
        return False

    def source(self) -> Source:
        """Where the items are: the file of each, or who knows the parts of shards or objects."""
        paths = [sample[0] for sample in self.dataset.samples]
        return paths if self.objects is None else self.objects.chosen(paths)

    def name(self, row: Any) -> str:
        """What to call an item: the path of its (original) file, or its URL."""
        return str(self.dataset.samples[row][0])

    def path(self, row: Any) -> str:
        """The file that is opened for an item."""
        return self.name(row)

    def target(self, row: int, read: Callable[[int], bytes | memoryview] | None = None) -> Any:
        """Before target_transform; `read` gives other items' bytes, see reads_targets."""
        return self.dataset.samples[row][1]

    def native_share(self) -> float:
        """Share of pictures whose name says a format the native pass decodes; of some 4,096 of them
        where there are more."""
        ours = tuple(end for name in _native.formats() for end in _EXTENSIONS[name])
        rows = range(0, len(self.dataset), max(1, len(self.dataset) // 4096))
        file = self.name if self.objects is None else self._path_in_place
        named = sum(1 for row in rows if file(row).lower().endswith(ours))
        return float(named / max(1, len(rows)))

    def _path_in_place(self, row: Any) -> str:
        """Of a remote object: its URL may end in that of the archive it is in."""
        assert self.objects is not None
        return self.objects.place.path_of(self.name(row))


class ListedFiles(Folder):
    """An ImageList."""

    @property
    def cache_name(self) -> str:
        paths = [path for path, _ in self.dataset.samples]
        return cache_name(paths) if self.objects is None else self.objects.list_name


class PackedShards(Folder):
    """A PackedFolder."""

    kind = "shards"
    form = "packed"

    def source(self) -> Source:
        return self.dataset.packed  # type: ignore[no-any-return]

    def path(self, row: Any) -> str:
        number = int(self.dataset.packed.index.shards[row])
        return os.path.join(self.dataset.root, shard_name(number))


class TarPictures(Folder):
    """A TarShards."""

    kind = "tar shards"

    @property
    def cache_name(self) -> str:
        return cache_name(self.dataset.shards)

    @property
    def reads_targets(self) -> bool:
        return bool(self.dataset.read_fields)

    def source(self) -> Source:
        return self.dataset  # type: ignore[no-any-return]

    def name(self, row: Any) -> str:
        return str(self.dataset.name(int(row)))

    def path(self, row: Any) -> str:
        return str(self.dataset.shards[self.dataset.index.shards[row]])

    def target(self, row: int, read: Callable[[int], bytes | memoryview] | None = None) -> Any:
        return self.dataset.target_of(row, read)

    def native_share(self) -> float:
        ours = tuple(end for name in _native.formats() for end in _EXTENSIONS[name])
        counts = self.dataset.index.field_counts(self.dataset.pictures)
        named = sum(n for field, n in counts.items() if f".{field}".endswith(ours))
        return float(named / max(1, len(self.dataset)))


class ArrowPictures(Folder):
    """A HuggingFaceImages."""

    kind = "the table's rows"
    reads = "the rows are read through Arrow, which is Python"

    @property
    def cache_name(self) -> str:
        return str(self.dataset.column.cache_name)

    def source(self) -> Source:
        return self.dataset.column  # type: ignore[no-any-return]

    def name(self, row: Any) -> str:
        return str(self.dataset.name(int(row)))

    def target(self, row: int, read: Callable[[int], bytes | memoryview] | None = None) -> Any:
        return self.dataset.target_of(row)

    def native_share(self) -> float:
        return float(self.dataset.share_of(tuple(_BEGINS[name] for name in _native.formats())))


class ArrowAudio(ArrowPictures):
    """A HuggingFaceAudio."""

    form = "original"
    python = "audio is decoded in Python (soundfile)"


class AudioFiles(Folder):
    """An AudioFolder."""

    form = "original"
    python = "audio is decoded in Python (soundfile)"


class DetectionFiles(Folder):
    """A CocoDetection."""

    python = "boxes are moved along with the pixels in Python"


class EncodedFiles(Folder):
    """An EncodedItems: of any of the others. Its rows are those of the data set below."""

    form = "original"
    python = "its items are handed on encoded"

    @property
    def _inner(self) -> Folder:
        return self.dataset.folder  # type: ignore[no-any-return]

    @property
    def objects(self) -> Objects | None:
        return self._inner.objects

    @property
    def cache_name(self) -> str:
        return self._inner.cache_name

    def source(self) -> Source:
        return self._inner.source()

    def name(self, row: Any) -> str:
        return self._inner.name(row)


_OURS: dict[type, type[Folder]] = {
    ImageFolder: Folder,
    ImageList: ListedFiles,
    PackedFolder: PackedShards,
    TarShards: TarPictures,
    AudioFolder: AudioFiles,
    CocoDetection: DetectionFiles,
    HuggingFaceImages: ArrowPictures,
    HuggingFaceAudio: ArrowAudio,
    EncodedItems: EncodedFiles,
}


def find_folder(dataset: Any) -> Folder | str:
    """The data set as coordl reads it, or why it is none coordl knows."""
    subsets: list[Any] = []  # outermost first; what they hold is read once it is known to be files
    while type(dataset) is torch.utils.data.Subset:
        subsets.append(dataset.indices)
        dataset = dataset.dataset
    name = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    torchvisions = (f"{_TORCHVISION}.ImageFolder", f"{_TORCHVISION}.DatasetFolder")
    kind = Folder if name in torchvisions else _OURS.get(type(dataset))
    if kind is None:
        ours = ", ".join(known.__qualname__ for known in _OURS if known is not EncodedItems)
        return (
            f"the data set is a {name}; coordl reads files itself for torchvision's ImageFolder "
            f"and DatasetFolder, coordl's {ours}, and Subsets of them"
        )
    if "__getitem__" in vars(dataset):
        return f"the {name} has a __getitem__ of its own"
    if kind in (Folder, ListedFiles) and not _is_stock_loader(dataset.loader):
        return f"its loader is {_name(dataset.loader)}, which may do anything with the file"
    try:
        rows = _rows_of(subsets)
    except (TypeError, ValueError, IndexError, OverflowError):
        return "a Subset's indices are no list of numbers, or beyond the Subset below it"
    if rows is not None and len(rows):
        count = len(dataset)
        if rows.min() < -count or rows.max() >= count:
            return f"a Subset names samples beyond the {count} there are"
        rows = np.where(rows < 0, rows + count, rows)
    if kind is EncodedFiles and dataset.folder.rows is not None:
        rows = dataset.folder.rows if rows is None else dataset.folder.rows[rows]
    return kind(dataset, rows)


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
