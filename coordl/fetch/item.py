"""Identity of items: which encoded bytes a sample is, so that a changed file is a new item."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coordl import _native
from coordl.fetch.failure import unreadable_item


@dataclass(frozen=True)
class Parts:
    """Where items lie that are byte ranges of shards, not files of their own.

    Attributes:
        names: N names to call them by; empty where nobody asks for them.
        shards: (N,) uint32, positions in `paths`.
        offsets, lengths: (N,) uint64.
        checksums: (N,) uint64, as shards.item_checksum() has them. None: the bytes are a user's,
            known only by the size and time the shard had.
        paths: S shards. sizes, mtimes_ns: (S,) int64, of the shards.
    """

    names: Sequence[str]
    shards: NDArray[np.uint32]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    checksums: NDArray[np.uint64] | None
    paths: Sequence[str]
    sizes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]


class Reader(Protocol):
    """Reads items that are no files here.

    Attributes:
        threads: reads at a time that are of use in one process.
    """

    threads: int

    def read(self, row: int, index: int, checked: bool) -> tuple[bytes, bool]:
        """The item, and whether it is sure to be the one its key is of.

        Args:
            row: which. index: its sample's, for errors.
            checked: that is asked for, though it may cost a request.
        """


@dataclass(frozen=True)
class Items:
    """The items of a data set, in its order; all arrays are read-only by convention.

    Attributes:
        paths: N paths as given; of its shard where an item is part of one.
        sizes: (N,) int64, bytes of the item.
        mtimes_ns: (N,) int64, nanoseconds since 1970, of the file or shard.
        keys: (N, 2) uint64, C order: high and low half of each item's 128-bit key.
        parts: None where every item is a file.
        reader: who reads them where they are no files here: times are zeros then, and so are keys
            of what no cache may hold.
        fields: how many items a sample has: those of sample i are i, i + N / fields, and so on.
    """

    paths: Sequence[str]
    sizes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]
    keys: NDArray[np.uint64]
    parts: Parts | None = None
    reader: Reader | None = None
    fields: int = 1

    def __len__(self) -> int:
        return len(self.paths)

    def sample(self, item: int) -> int:
        """The sample an item belongs to."""
        return item % (len(self) // self.fields)

    @property
    def total_bytes(self) -> int:
        """Encoded bytes of all items."""
        return int(self.sizes.sum())


class Shards(Protocol):
    """Who knows a data set's items that are no files here: parts of shards, remote objects."""

    def items(self, keyed: bool) -> Items:
        """All of them; `keyed`: with keys, for a cache."""


Source = list[str] | Shards


def identify(paths: Sequence[str], *, threads: int = 8) -> Items:
    """Stats every file and hashes its identity.

    The key is BLAKE2b-128 over size, mtime in ns, first byte and end of the byte range, and the
    absolute path with its folder's links resolved. A link as the last component is not resolved:
    two names of one file are two items, which costs cache, never correctness; its size and mtime
    are the target's.

    Args:
        paths: files, relative ones against the current directory.
        threads: how many stat at once (for slow or remote file systems).

    Raises:
        ItemError: (also an OSError, e.g. FileNotFoundError) for the first that is no readable plain
            file, naming index and path.
    """
    sizes, mtimes_ns, errnos = _native.stat_files(paths, threads)
    bad = np.flatnonzero(errnos)
    if bad.size:
        index = int(bad[0])
        raise unreadable_item(int(errnos[index]), index, os.fspath(paths[index]))
    return Items(paths, sizes, mtimes_ns, _keys(paths, sizes, mtimes_ns, 0 * sizes, sizes))


def identify_there(paths: Sequence[str], *, threads: int = 16) -> Items:
    """The same, with zeros for what is no readable plain file: it fails when its turn comes."""
    sizes, mtimes_ns, errnos = _native.stat_files(paths, threads)
    good = np.flatnonzero(errnos == 0)
    chosen = [paths[row] for row in good.tolist()]
    keys = np.zeros((len(paths), 2), np.uint64)
    nothing = 0 * sizes[good]
    keys[good] = _keys(chosen, sizes[good], mtimes_ns[good], nothing, sizes[good])
    there = errnos == 0
    return Items(paths, np.where(there, sizes, 0), np.where(there, mtimes_ns, 0), keys)


def unidentified(paths: Sequence[str]) -> Items:
    """Items of which nothing was looked at: zeros throughout."""
    zeros = np.zeros(len(paths), np.int64)
    return Items(paths, zeros, zeros, np.zeros((len(paths), 2), np.uint64))


def identify_parts(parts: Parts, *, keyed: bool = True, fields: int = 1) -> Items:
    """The same for parts of shards; the shards' sizes and times are those in `parts`.

    Without `keyed` the keys are zeros: only a cache needs them.
    """
    offsets = parts.offsets.astype(np.int64)
    lengths = parts.lengths.astype(np.int64)
    shards = parts.shards
    paths = [parts.paths[shard] for shard in shards.tolist()]
    sizes, mtimes_ns = parts.sizes[shards], parts.mtimes_ns[shards]
    keys = np.zeros((len(paths), 2), np.uint64)
    if keyed:
        keys = _keys(paths, sizes, mtimes_ns, offsets, offsets + lengths)
    return Items(paths, lengths, mtimes_ns, keys, parts, fields=fields)


def _keys(
    paths: Sequence[str],
    sizes: NDArray[np.int64],
    mtimes_ns: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> NDArray[np.uint64]:
    folders: dict[str, bytes] = {}
    pack = struct.Struct("<4q").pack
    digests = bytearray()
    numbers = np.stack([sizes, mtimes_ns, begins, ends], axis=1).tolist()
    for path, identity in zip(paths, numbers, strict=True):
        folder, name = os.path.split(path)
        real = folders.get(folder)
        if real is None:
            real = folders[folder] = os.fsencode(os.path.join(os.path.realpath(folder), ""))
        digests += blake2b(pack(*identity) + real + os.fsencode(name), digest_size=16).digest()
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(-1, 2)
