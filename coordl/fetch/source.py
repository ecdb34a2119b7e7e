"""The items of an image folder, and the cache they share, for native threads and Python workers."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.utils.data

from coordl import _native
from coordl.datasets import open_rgb
from coordl.errors import item_error
from coordl.fetch.cache import MinIOCache
from coordl.fetch.folder import Folder
from coordl.fetch.item import Items, identify


@dataclass
class FolderItems:
    """The files of an image folder as they were when last looked at.

    Attributes:
        paths: by row of the folder.
        table: the same for native threads.
        items: sizes, times and keys; None without a cache, where nobody asks the file system.
        cache: None without one.
    """

    paths: list[str]
    table: _native.ItemTable
    items: Items | None
    cache: MinIOCache | None

    @classmethod
    def of(cls, folder: Folder, cache: int | str | MinIOCache | None) -> FolderItems:
        paths = folder.paths()
        if cache is None:
            zeros = np.zeros(len(paths), np.int64)
            keys = np.zeros((len(paths), 2), np.uint64)
            return cls(paths, _native.ItemTable(paths, zeros.astype(np.uint64), zeros, keys), None, None)
        items = identify(paths)
        table = _native.ItemTable(paths, items.sizes.astype(np.uint64), items.mtimes_ns, items.keys)
        return cls(paths, table, items, open_cache(cache, folder, items))
