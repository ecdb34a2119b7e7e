"""A column of encoded files in a Hugging Face data set: which bytes each row has, undecoded."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordl import _native
from coordl.errors import ItemError
from coordl.fetch.failure import unreadable_item
from coordl.fetch.item import Items, identify_there
from coordl.fetch.place import is_url

_DATASET = "datasets.arrow_dataset.Dataset"


def check_dataset(dataset: Any) -> None:
    """Refuses what is no datasets.Dataset, by its class's name: the package is not imported.

    Raises:
        TypeError: it is another class.
        ValueError: it has a transform of its own, which would be passed over.
    """
    kind = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    if kind != _DATASET:
        raise TypeError(
            f"a datasets.Dataset is needed, with rows by number, and this is a {kind}. Of a "
            "DatasetDict take a split (dataset['train']); a streamed one must be loaded with "
            "streaming=False"
        )
    if dataset.format["type"] == "custom":
        raise ValueError(
            "the data set has a set_transform() or with_transform() of its own, which would not "
            "run: give it here as transform=, of one sample, and dataset.with_format(None)"
        )


class Column:
    """Encoded files of a data set's rows: from its Arrow table, or the file a row names.

    Args:
        dataset: a datasets.Dataset. name: of the column. kind: "Image" or "Audio", its feature.

    Raises:
        ValueError: there is no such column; says which there are.
    """

    threads = 1  # a memory map has no latency that threads would hide

    def __init__(self, dataset: Any, name: str, kind: str) -> None:
        features = dataset.features
        wanted = f"datasets.features.{kind.lower()}.{kind}"
        fitting = [column for column, feature in features.items() if _name(feature) == wanted]
        if name not in fitting:
            what = "is none" if name in features else "does not exist"
            raise ValueError(
                f"the column {name!r} {what} of {kind} features; those are: "
                f"{', '.join(map(repr, fitting)) or 'none'}, of {', '.join(map(repr, features))}"
            )
        self.name = name
        self.fingerprint = str(dataset._fingerprint)
        undecoded = type(features[name])(decode=False)
        plain = dataset.with_format(None).select_columns([name])
        self._rows = plain.cast_column(name, undecoded)
        self._items: Items | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int, index: int, checked: bool = False) -> tuple[bytes, bool]:
        """The encoded file of a row, and whether it is the one its key is of.

        Raises:
            ItemError: the row has none, or the file it names cannot be read (an OSError as well).
        """
        cell = self._rows[row][self.name] or {}
        data, path = cell.get("bytes"), cell.get("path")
        if data is not None:
            return data, True
        if path is None:
            raise ItemError(
                f"sample {index}: its {self.name!r} is empty. Filter such rows out, or give the "
                "loader an on_error.",
                index,
            )
        if is_url(path):
            return _opened(path), False
        try:
            data, size, mtime_ns = _native.read_identified(path)
        except OSError as error:
            raise unreadable_item(error.errno or 0, index, path) from error
        except EOFError as error:
            raise ItemError(f"sample {index}: {error}", index, path) from error
        known = self._items
        return data, known is not None and _same(known, row, size, mtime_ns)

    def path(self, row: int) -> str:
        """The file a row names, or named when it was put in; empty without one."""
        return str((self._rows[row][self.name] or {}).get("path") or "")

    @property
    def cache_name(self) -> str:
        name = f"{self.fingerprint}\0{self.name}".encode()
        return blake2b(name, digest_size=12, person=b"huggingface").hexdigest()

    def items(self, keyed: bool) -> Items:
        """All of them. Keys are made of the data set's fingerprint, the row and its size; where a
        row only names a file, of that file's path, size and time, as they are now."""
        if not keyed:
            return self._as_items(np.zeros(len(self), np.int64), self._zeros())
        if self._items is None:
            self._items = self._identified()
        return self._items

    def _identified(self) -> Items:
        sizes, paths = self._lengths(), self._paths()
        keys = self._zeros()
        mtimes_ns = np.zeros(len(self), np.int64)
        named = np.flatnonzero(sizes < 0)
        inside = np.flatnonzero(sizes >= 0)
        for row, size in zip(inside.tolist(), sizes[inside].tolist(), strict=True):
            keys[row] = _key(self.fingerprint, self.name, row, size)
        here = {row: path for row in named.tolist() if (path := paths[row]) and not is_url(path)}
        sizes[named] = 0
        if here:
            files = list(here)
            found = identify_there([os.path.abspath(path) for path in here.values()])
            sizes[files], mtimes_ns[files] = found.sizes, found.mtimes_ns
            keys[files] = found.keys
        return self._as_items(sizes, keys, mtimes_ns)

    def _as_items(
        self,
        sizes: NDArray[np.int64],
        keys: NDArray[np.uint64],
        mtimes_ns: NDArray[np.int64] | None = None,
    ) -> Items:
        times = np.zeros(len(self), np.int64) if mtimes_ns is None else mtimes_ns
        return Items([""] * len(self), sizes, times, keys, reader=self)

    def _zeros(self) -> NDArray[np.uint64]:
        return np.zeros((len(self), 2), np.uint64)

    def _lengths(self) -> NDArray[np.int64]:
        """(N,), of each row's bytes; -1 where it has none."""
        import pyarrow.compute as arrow

        lengths = arrow.binary_length(arrow.struct_field(self._column(), "bytes"))
        return self._in_order(arrow.fill_null(lengths, -1).to_numpy().astype(np.int64))

    def _paths(self) -> Sequence[str | None]:
        import pyarrow.compute as arrow

        paths = arrow.struct_field(self._column(), "path")
        return self._in_order(np.array(paths.to_pylist(), object)).tolist()  # type: ignore[no-any-return]

    def _column(self) -> Any:
        return self._rows.data.column(self.name)

    def _in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of the table's rows those of the data set: select(), shuffle() and filter() choose by a
        table of numbers."""
        chosen = self._rows._indices
        return values if chosen is None else values[chosen.column(0).to_numpy()]


def _name(feature: Any) -> str:
    return f"{type(feature).__module__}.{type(feature).__qualname__}"


def _key(fingerprint: str, name: str, row: int, size: int) -> tuple[int, int]:
    digest = blake2b(digest_size=16, person=b"huggingface")  # no key of a file's
    digest.update(struct.pack("<2q", row, size) + f"{fingerprint}\0{name}".encode())
    low, high = struct.unpack("<2Q", digest.digest())
    return high, low


def _same(items: Items, row: int, size: int, mtime_ns: int) -> bool:
    return bool(items.sizes[row] == size and items.mtimes_ns[row] == mtime_ns)


def _opened(url: str) -> bytes:
    import fsspec

    with fsspec.open(url, "rb") as file:
        return bytes(file.read())
