"""Packed data sets on disk: shards of items, and the index that says where each of them lies.

docs/packed-data.md has the formats byte by byte. What is read here may come from anywhere: every
number is checked before it is used, and the items themselves when they are read (fetch/storage.py,
native/prep/workers.cpp).
"""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordl import _native
from coordl.errors import PackedDataError
from coordl.fetch.item import Items, Parts, identify_parts

SCHEMA = 1
MANIFEST, INDEX, STATE = "manifest.json", "index.cdi", "unfinished.json"
FORMS = ("original", "indexed", "packed")
ALIGNMENT = 64  # a cache line: views of items are as aligned as those of the cache
SHARD_HEADER_BYTES = 64

_SHARD = struct.Struct("<8sII16s32x")  # magic, version, number, id
_SHARD_MAGIC = b"CdShard\n"
_HEAD = struct.Struct("<8sIIQQQQ16s")  # magic, version, 0, items, shards, names, classes, id
_INDEX_MAGIC = b"CdIndex\n"
# Of each item, in this order: the widest first, so that all are aligned.
_COLUMNS = (
    ("offsets", "<u8"), ("lengths", "<u8"), ("checksums", "<u8"), ("source_sizes", "<u8"),
    ("source_mtimes_ns", "<i8"), ("shards", "<u4"), ("targets", "<u4"), ("forms", "u1"),
)  # fmt: skip
_ITEM_BYTES = sum(np.dtype(kind).itemsize for _, kind in _COLUMNS)
# A component of a name that is empty, "." or "..": it would lead out of the folder unpacked into.
_UNSAFE_NAME = re.compile(rb"(?:\A|[/\0])\.{0,2}(?=[/\0])")


@dataclass(frozen=True)
class Index:
    """Where the items of a data set, or of one of its shards, lie; arrays read-only by convention.

    Attributes:
        id: 16 bytes that name the data set: shards of another one do not fit.
        offsets, lengths, checksums: (N,) uint64: bytes in the shard; checksum of them there.
        source_sizes: (N,) uint64, source_mtimes_ns: (N,) int64: of the original files.
        shards, targets: (N,) uint32: number of shard and class.
        forms: (N,) uint8, positions in FORMS.
        shard_sizes: (S,) uint64, bytes of each shard.
        names: N paths of the original files below their root, "/" between folders.
        classes: class names by number.
    """

    id: bytes
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    checksums: NDArray[np.uint64]
    source_sizes: NDArray[np.uint64]
    source_mtimes_ns: NDArray[np.int64]
    shards: NDArray[np.uint32]
    targets: NDArray[np.uint32]
    forms: NDArray[np.uint8]
    shard_sizes: NDArray[np.uint64]
    names: list[str]
    classes: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def form_counts(self) -> dict[str, int]:
        counts = np.bincount(self.forms, minlength=len(FORMS))
        return {name: int(count) for name, count in zip(FORMS, counts, strict=True)}


def shard_name(number: int) -> str:
    return f"shard-{number:05}.cds"


def part_name(number: int) -> str:
    """The index of one finished shard, while others are still to come."""
    return f"shard-{number:05}.cdp"


def shard_header(id: bytes, number: int) -> bytes:
    return _SHARD.pack(_SHARD_MAGIC, SCHEMA, number, id)


def item_checksum(data: bytes | memoryview, offset: int) -> int:
    """Of an item that lies at `offset` of its shard: at another place it is wrong."""
    return _native.checksum(data, offset, len(data))


# ------------------------------------------------------------------------------------- the index


def encode_index(index: Index) -> bytes:
    names, classes = _joined(index.names), _joined(index.classes)
    sizes = len(index), len(index.shard_sizes), len(names), len(classes)
    columns = {name: np.asarray(getattr(index, name), kind) for name, kind in _COLUMNS}
    body = b"".join(
        [
            _HEAD.pack(_INDEX_MAGIC, SCHEMA, 0, *sizes, index.id),
            np.asarray(index.shard_sizes, "<u8").tobytes(),
            *(columns[name].tobytes() for name, _ in _COLUMNS),
            names,
            classes,
        ]
    )
    return body + struct.pack("<Q", _native.checksum(body))


def decode_index(data: bytes, path: str) -> Index:
    """The index in `data`, which was read from `path`.

    Raises:
        PackedDataError: it is none, of another version, damaged, or points outside the shards.
    """
    if len(data) < _HEAD.size + 8 or not data.startswith(_INDEX_MAGIC):
        raise PackedDataError(f"{path} is no index of a packed data set ({len(data):,} bytes).")
    _, version, _, items, shards, names, classes, id = _HEAD.unpack_from(data)
    if version != SCHEMA:
        raise PackedDataError(f"{path} {_other_format(version)}")
    expected = _HEAD.size + 8 * shards + _ITEM_BYTES * items + names + classes + 8
    if expected != len(data):
        raise PackedDataError(
            f"{path} is cut short: {len(data):,} of {expected:,} bytes. {_ADVICE}"
        )
    if _native.checksum(memoryview(data)[:-8]) != struct.unpack_from("<Q", data, len(data) - 8)[0]:
        raise PackedDataError(f"{path} is damaged: its checksum does not fit. {_ADVICE}")
    at = _HEAD.size
    shard_sizes = np.frombuffer(data, "<u8", shards, at)
    at += 8 * shards
    columns: dict[str, Any] = {}
    for name, kind in _COLUMNS:
        columns[name] = np.frombuffer(data, kind, items, at)
        at += columns[name].nbytes
    raw_names = data[at : at + names]
    index = Index(
        id=id,
        shard_sizes=shard_sizes,
        names=_split(raw_names),
        classes=_split(data[at + names : at + names + classes]),
        **columns,
    )
    fault = _fault_of(index, items, raw_names)
    if fault:
        raise PackedDataError(f"{path} is damaged: {fault}. {_ADVICE}")
    return index


def _other_format(version: object) -> str:
    newer = isinstance(version, int) and version > SCHEMA
    return f"has format {version}; this coordl reads format {SCHEMA}. " + (
        "Update coordl, or pack the files anew with this one (coordl pack)."
        if newer
        else "Read it with the version that packed it, or pack anew (coordl pack --force)."
    )


_ADVICE = "Copy it again from where it is whole, or pack anew (coordl pack --force)."


def _fault_of(index: Index, items: int, raw_names: bytes) -> str:
    """What is impossible in an index; a checksum stops no liar."""
    if len(index.names) != items:
        return f"it names {len(index.names)} of {items} items"
    if _UNSAFE_NAME.search(raw_names):
        return "a name in it would lead out of its folder"
    if not items:
        return "it holds no items"
    if index.shards.max() >= len(index.shard_sizes):
        return "an item lies in a shard that does not exist"
    if index.targets.max() >= len(index.classes):
        return "an item has a class that does not exist"
    if index.forms.max() >= len(FORMS):
        return "an item has a form that does not exist"
    room = index.shard_sizes[index.shards]
    inside = (index.offsets >= SHARD_HEADER_BYTES) & (index.offsets <= room)
    if not (inside & (index.lengths <= room - np.minimum(index.offsets, room))).all():
        return "an item lies outside its shard"
    return ""


def _joined(texts: list[str]) -> bytes:
    return b"".join(os.fsencode(text) + b"\0" for text in texts)


def _split(data: bytes) -> list[str]:
    if data and not data.endswith(b"\0"):
        return []
    return [os.fsdecode(text) for text in data.split(b"\0")[:-1]]


def join_parts(parts: list[Index]) -> Index:
    """The index of a data set from those of its shards, in order; each counts its shard as 0."""
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name, _ in _COLUMNS}
    counts = [len(part) for part in parts]
    columns["shards"] = np.repeat(np.arange(len(parts), dtype=np.uint32), counts)
    return Index(
        id=parts[0].id,
        shard_sizes=np.concatenate([part.shard_sizes for part in parts]),
        names=[name for part in parts for name in part.names],
        classes=parts[0].classes,
        **columns,
    )


# ---------------------------------------------------------------------------------- the data set


@dataclass(frozen=True)
class PackedData:
    """A finished packed data set, opened for reading.

    Attributes:
        root: its folder, as given.
        index: where the items lie.
        manifest: manifest.json.
    """

    root: str
    index: Index
    manifest: dict[str, Any]

    def shard_paths(self) -> list[str]:
        return [os.path.join(self.root, shard_name(i)) for i in range(len(self.index.shard_sizes))]

    def items(self, keyed: bool) -> Items:
        """The items, with the shards' sizes and times as they are now (0 where one cannot be looked
        at: its items fail when their turn comes). Keys, for a cache, on request."""
        index, paths = self.index, self.shard_paths()
        sizes, mtimes_ns, _ = _native.stat_files(paths)
        columns = index.shards, index.offsets, index.lengths, index.checksums
        return identify_parts(Parts(index.names, *columns, paths, sizes, mtimes_ns), keyed=keyed)


def open_packed(root: str | os.PathLike[str]) -> PackedData:
    """Opens a packed data set and checks index, sizes and headers of the shards, but not the items.

    Raises:
        FileNotFoundError: there is no such folder.
        PackedDataError: it holds no finished packed data set, or a damaged one; names the file.
    """
    root = os.fspath(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"There is no folder {root!r}. Name the folder `coordl pack` made.")
    manifest = read_manifest(root)
    if manifest is None:
        if os.path.exists(os.path.join(root, STATE)):
            raise PackedDataError(
                f"{root} is not packed to the end. Run the same `coordl pack` again: it goes on "
                "where it stopped."
            )
        raise PackedDataError(
            f"{root} holds no packed data set: {MANIFEST} is missing. Name the folder "
            "`coordl pack` made; a folder of pictures is a coordl.ImageFolder."
        )
    path = os.path.join(root, INDEX)
    try:
        with open(path, "rb") as file:
            index = decode_index(file.read(), path)
    except FileNotFoundError:
        raise PackedDataError(f"{path} is missing. {_ADVICE}") from None
    if index.id.hex() != manifest.get("id") or len(index) != manifest.get("items"):
        raise PackedDataError(f"{path} belongs to another data set than {MANIFEST}. {_ADVICE}")
    data = PackedData(root, index, manifest)
    for number, shard in enumerate(data.shard_paths()):
        fault = shard_fault(shard, index.id, number, int(index.shard_sizes[number]))
        if fault:
            raise PackedDataError(f"{shard} {fault}")
    return data


def read_manifest(root: str) -> dict[str, Any] | None:
    """manifest.json, which a data set has once it is finished.

    Raises:
        PackedDataError: there is one, and it is not of a packed data set this version reads.
    """
    path = os.path.join(root, MANIFEST)
    try:
        with open(path, "rb") as file:
            manifest = json.loads(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PackedDataError(f"{path} is damaged: {error}. {_ADVICE}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "coordl packed data":
        raise PackedDataError(f"{path} is not a packed data set's.")
    if manifest.get("schema") != SCHEMA:
        raise PackedDataError(f"{path} {_other_format(manifest.get('schema'))}")
    return manifest


def shard_fault(path: str, id: bytes, number: int, size: int) -> str:
    """What is wrong with a shard from the outside, and what to do: missing, of another format, its
    size, its header. Or nothing."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno()).st_size
            header = file.read(SHARD_HEADER_BYTES)
    except FileNotFoundError:
        return f"is missing. {_ADVICE}"
    if len(header) == SHARD_HEADER_BYTES and header.startswith(_SHARD_MAGIC):
        version = _SHARD.unpack(header)[1]
        if version != SCHEMA:
            return _other_format(version)
    if found != size:
        how = "cut short" if found < size else "too long"
        return f"is {how}: {found:,} bytes, the index says {size:,}. {_ADVICE}"
    if header != shard_header(id, number):
        return f"is not this data set's shard of that number, by its header. {_ADVICE}"
    return ""
