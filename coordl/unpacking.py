"""Packed data sets back into image folders: what `coordl unpack` does."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from coordl import _native
from coordl.errors import PackedDataError
from coordl.fetch.failure import damaged_item
from coordl.fetch.item import Items
from coordl.fetch.shard_writer import TEMPORARY
from coordl.fetch.shards import FORMS, Index, PackedData
from coordl.fetch.storage import fetch
from coordl.packing import Tell, in_order, tell_nobody


def unpack(
    data: PackedData,
    out: str | os.PathLike[str],
    *,
    jobs: int = 1,
    force: bool = False,
    tell: Tell = tell_nobody,
) -> int:
    """Gives class folders back, with the original names; the bytes written.

    Files stored as they are come back bit for bit, the others as JPEGs of the same coefficients,
    tables and metadata.

    Args:
        out: folder for them, new or empty.
        force: write into a folder that holds something, over files of the same names.

    Raises:
        PackedDataError: `out` holds something.
        ItemError: an item is damaged or unreadable; names index, file and shard.
    """
    out = os.fspath(out)
    os.makedirs(out, exist_ok=True)
    if os.listdir(out) and not force:
        raise PackedDataError(
            f"{out} is not empty. Name a new folder; --force writes over files of the same names."
        )
    index, items = data.index, data.items(keyed=False)
    for folder in sorted({os.path.dirname(name) for name in index.names}):
        os.makedirs(os.path.join(out, folder), exist_ok=True)
    total = 0
    with ThreadPoolExecutor(jobs, "coordl-unpack") as pool:
        try:
            rows = range(len(index))
            for _, size in in_order(
                pool, lambda row: _unpacked(index, items, out, row), rows, jobs
            ):
                total += size
                tell(1, size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total


def _unpacked(index: Index, items: Items, out: str, row: int) -> int:
    data = bytes(fetch(items, row))
    if index.forms[row] != FORMS.index("original"):
        unpacked = _native.unpack(data)
        if unpacked is None:
            raise damaged_item(row, index.names[row], items.paths[row])
        data = unpacked
    path = os.path.join(out, index.names[row])
    # Beside its place, under a short name: a stopped run leaves no half file that looks whole.
    temporary = os.path.join(os.path.dirname(path), f".{row:x}{TEMPORARY}")
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
    return len(data)
