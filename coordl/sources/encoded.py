"""The encoded bytes of a known data set's samples, for whoever decodes them elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.utils.data

from coordl import _native
from coordl.errors import PackedDataError, item_error
from coordl.fetch.storage import fetch

if TYPE_CHECKING:
    from coordl.fetch.folder import Folder
    from coordl.fetch.item import Items

Read = Callable[[int], bytes | memoryview]


class EncodedItems(torch.utils.data.Dataset):
    """(encoded file (L,) uint8, target) of each sample; its transform does not run.

    Args:
        folder: the data set, as coordl reads it.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._items: Items | None = None

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        indices, rows = self.folder.positions([index])
        return self.sample(int(rows[0]), int(indices[0]))

    def sample(self, row: int, index: int, read: Read | None = None) -> tuple[Any, Any]:
        """Sample `row`, called `index` in errors; bytes of items from `read`, if given."""
        read = read or self._from_storage
        folder = self.folder
        try:
            data = self._original(read(row), row)
            target = folder.target(row, read)
        except Exception as error:
            raise item_error(error, index, folder.name(row)) from error
        transform = folder.dataset.target_transform
        return np.frombuffer(data, np.uint8), target if transform is None else transform(target)

    def _original(self, data: bytes | memoryview, row: int) -> bytes | memoryview:
        """The file itself, of an item in any form: other loaders' caches, packed data sets."""
        form = _native.form(data)
        if form == "original":
            return data
        unpacked = _native.unpack(data)
        if unpacked is None:  # a cache may hold it without its JPEG's header
            data = self._from_storage(row)
            unpacked = bytes(data) if _native.form(data) == "original" else _native.unpack(data)
        if unpacked is None:
            raise PackedDataError(f"the {form} item of {len(data):,} bytes is damaged")
        return unpacked

    def _from_storage(self, row: int) -> bytes | memoryview:
        if self._items is None:
            from coordl.fetch.source import FolderItems

            self._items = FolderItems.of(self.folder.source(), False, None).items
        return fetch(self._items, row)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_items": None}

    def __repr__(self) -> str:
        return f"coordl encoded items of {self.folder.dataset!r}"
