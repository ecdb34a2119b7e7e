"""Identity of items: which encoded bytes a sample is, so that a changed file is a new item."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from coordl import _native
from coordl.fetch.failure import unreadable_item


@dataclass(frozen=True)
class Items:
    """The items of a data set, in its order; all arrays are read-only by convention.

    Attributes:
        paths: N paths as given.
        sizes: (N,) int64, bytes.
        mtimes_ns: (N,) int64, nanoseconds since 1970.
        keys: (N, 2) uint64, C order: high and low half of each item's 128-bit key.
    """

    paths: Sequence[str]
    sizes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]
    keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def total_bytes(self) -> int:
        """Encoded bytes of all items."""
        return int(self.sizes.sum())


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
    return Items(paths, sizes, mtimes_ns, _keys(paths, sizes, mtimes_ns))


def _keys(
    paths: Sequence[str], sizes: NDArray[np.int64], mtimes_ns: NDArray[np.int64]
) -> NDArray[np.uint64]:
    folders: dict[str, bytes] = {}
    pack = struct.Struct("<4q").pack
    digests = bytearray()
    for path, size, mtime_ns in zip(paths, sizes.tolist(), mtimes_ns.tolist(), strict=True):
        folder, name = os.path.split(path)
        real = folders.get(folder)
        if real is None:
            real = folders[folder] = os.fsencode(os.path.join(os.path.realpath(folder), ""))
        identity = pack(size, mtime_ns, 0, size) + real + os.fsencode(name)
        digests += blake2b(identity, digest_size=16).digest()
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(-1, 2)
