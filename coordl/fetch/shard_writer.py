"""Writing packed data sets so that a kill at any moment costs no finished shard.

Everything appears whole or not at all: written under a temporary name, synced, renamed. The order
is shard, its part of the index, ..., index, manifest; what lacks its successor is done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from coordl.fetch.shards import (
    ALIGNMENT,
    FORMS,
    SHARD_HEADER_BYTES,
    Index,
    encode_index,
    item_checksum,
    part_name,
    shard_header,
    shard_name,
)

TEMPORARY = ".tmp"

# Moments at which the tests kill; see native/os/steps.hpp.
STEPS = (
    "pack:begun", "shard:begun", "shard:item", "shard:written", "shard:renamed", "part:written",
    "part:renamed", "index:renamed", "manifest:renamed", "pack:swept",
)  # fmt: skip
step_hook: Callable[[str], None] | None = None


def at_step(step: str) -> None:
    if step_hook is not None:
        step_hook(step)


def sync_folder(folder: str) -> None:
    """Makes renames in it last."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(path: str, data: bytes, written: str = "") -> None:
    """A file that is there whole or not at all, also after a power cut."""
    with open(path + TEMPORARY, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if written:
        at_step(written)
    os.replace(path + TEMPORARY, path)
    sync_folder(os.path.dirname(path))


def write_json(path: str, value: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())


class ShardWriter:
    """One shard on its way. Used by one thread; finish() or abandon() ends it."""

    def __init__(self, folder: str, number: int, id: bytes, classes: list[str]) -> None:
        self._folder, self._number, self._id, self._classes = folder, number, id, classes
        self._path = os.path.join(folder, shard_name(number))
        self._rows: list[tuple[int, int, int, int, int, int, int]] = []
        self._names: list[str] = []
        self._file = open(self._path + TEMPORARY, "wb")  # noqa: SIM115 - finish() closes it
        self._file.write(shard_header(id, number))
        self._end = SHARD_HEADER_BYTES
        at_step("shard:begun")

    def fits(self, length: int, most: int) -> bool:
        """Whether an item still goes into a shard of `most` bytes; the first always does."""
        return not self._rows or _aligned(self._end) + length <= most

    def add(self, item: bytes, form: str, name: str, target: int, size: int, mtime_ns: int) -> None:
        offset = _aligned(self._end)
        self._file.write(bytes(offset - self._end))
        self._file.write(item)
        self._end = offset + len(item)
        checksum = item_checksum(item, offset)
        row = offset, len(item), checksum, size, mtime_ns, target, FORMS.index(form)
        self._rows.append(row)
        self._names.append(name)
        at_step("shard:item")

    def finish(self) -> Index:
        """Makes shard and its part of the index last; what the part says."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        at_step("shard:written")
        os.replace(self._path + TEMPORARY, self._path)
        sync_folder(self._folder)
        at_step("shard:renamed")
        part = self._part()
        # Only a shard that lasts may have a part: the part is what counts when work is resumed.
        path = os.path.join(self._folder, part_name(self._number))
        write_whole(path, encode_index(part), "part:written")
        at_step("part:renamed")
        return part

    def abandon(self) -> None:
        """Drops what is not finished. Never raises: it follows what ended the work."""
        with suppress(OSError):  # a full disk refuses what is still to be flushed
            self._file.close()
        with suppress(OSError):
            os.unlink(self._path + TEMPORARY)

    def _part(self) -> Index:
        offsets, lengths, checksums, sizes, mtimes_ns, targets, forms = zip(
            *self._rows, strict=True
        )
        return Index(
            id=self._id,
            offsets=np.array(offsets, np.uint64),
            lengths=np.array(lengths, np.uint64),
            checksums=np.array(checksums, np.uint64),
            source_sizes=np.array(sizes, np.uint64),
            source_mtimes_ns=np.array(mtimes_ns, np.int64),
            shards=np.zeros(len(offsets), np.uint32),
            targets=np.array(targets, np.uint32),
            forms=np.array(forms, np.uint8),
            shard_sizes=np.array([self._end], np.uint64),
            names=self._names,
            classes=self._classes,
        )


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
