"""The Python way to an item's bytes: the cache, then the file, or who reads what is no file here.
Native prep has its own, for files."""

from __future__ import annotations

import os
import sys

from coordl import _native
from coordl.errors import ItemError
from coordl.fetch.cache import MinIOCache
from coordl.fetch.failure import changed_shard, damaged_item, unreadable_item
from coordl.fetch.item import Items
from coordl.fetch.shards import item_checksum
from coordl.peers.asking import OwnersCache


def fetch(
    items: Items,
    index: int,
    cache: MinIOCache | OwnersCache | None = None,
    form: str | None = None,
) -> bytes | memoryview:
    """The encoded bytes of item `index`: a read-only view of the cache, or bytes read now.

    What was read is admitted to the cache when the file still is the one identified; a file that
    was replaced since is delivered as it is now (as torch would) and stays out of the cache. The
    pages of what was admitted are dropped from the page cache: one copy is enough.

    `form` is what JPEGs are held in; the cache's own by default.

    Raises the audit event "open" once per read from storage, as `os.open` would, so that profilers
    see native reads too.

    Raises:
        ItemError: names the sample's index and path (of a packed item: its name and shard). Also an
            OSError (FileNotFoundError, PermissionError, ...) when the kernel refused the file; a
            plain ItemError when it changed while it was read or, of a shard, since it was indexed,
            or when a packed shard's bytes are damaged.
    """
    key = items.keys[index]
    if cache is not None:
        held = cache.get(key)
        if held is not None:
            return held
    if items.reader is not None:
        return _fetch_read(items, index, cache, form)
    path, sample = items.paths[index], items.sample(index)
    sys.audit("open", path, None, os.O_RDONLY)
    try:
        data, unchanged = _read(items, index)
    except OSError as error:
        raise unreadable_item(error.errno or 0, sample, path) from error
    except EOFError as error:
        raise ItemError(
            f"sample {sample}: {error}. Nothing may write to the data set during an epoch.",
            sample,
            path,
        ) from error
    if cache is not None and unchanged and cache.takes(key, len(data)):
        _admit(items, index, cache, data, form or cache.form)
    return data


def _fetch_read(
    items: Items, index: int, cache: MinIOCache | OwnersCache | None, form: str | None
) -> bytes:
    """The same from a reader."""
    assert items.reader is not None
    key = items.keys[index]
    held = cache is not None and key.any() and cache.takes(key, int(items.sizes[index]))
    data, same = items.reader.read(index, items.sample(index), checked=bool(held))
    if cache is not None and held and same and _native.check_item(data):
        _admit(items, index, cache, data, form or cache.form)
    return data


def _admit(
    items: Items, index: int, cache: MinIOCache | OwnersCache, data: bytes, form: str
) -> None:
    key, parts = items.keys[index], items.parts
    rewritten = _held(data, form)
    held = cache.admit(key, rewritten)
    if not held and rewritten is not data:
        held = cache.admit(key, data)  # as it is it may still fit
    if held and items.reader is None:
        part = (0, 0) if parts is None else (int(parts.offsets[index]), int(parts.lengths[index]))
        _native.drop_from_page_cache(items.paths[index], *part)


def _read(items: Items, index: int) -> tuple[bytes, bool]:
    """The item's bytes, and whether its file still is the one identified."""
    parts, path, mtime_ns = items.parts, items.paths[index], items.mtimes_ns[index]
    if parts is None:
        data, size, found_ns = _native.read_identified(path)
        # Who reads the cache decodes our forms unchecked: a user's file that looks so stays out.
        unchanged = size == items.sizes[index] and found_ns == mtime_ns
        return data, bool(unchanged) and _native.check_item(data)
    offset = int(parts.offsets[index])
    data, size, found_ns = _native.read_part(path, offset, int(parts.lengths[index]))
    there = bool(size == parts.sizes[parts.shards[index]] and found_ns == mtime_ns)
    if parts.checksums is None:
        if not there:
            raise EOFError(changed_shard(path))
        return data, _native.check_item(data)
    # Shards may come from anywhere. What goes into the cache is looked at here, and never again.
    if item_checksum(data, offset) != parts.checksums[index] or not _native.check_item(data):
        raise damaged_item(index, parts.names[index], path)
    return data, there


def _held(data: bytes, form: str) -> bytes:
    """The item as the cache was asked to hold it; as it is where it has no such form."""
    if form not in ("indexed", "packed") or _native.form(data) != "original":
        return data
    return _native.recode(data, form, keep_header=True) or data
