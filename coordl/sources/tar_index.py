"""Where the samples of tar shards lie: read from the headers once, kept, checked when it is used.

Samples are WebDataset's: members that follow one another and have the same name up to the first
"." of its last part (the key); what comes after that "." is the field, in lower case.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordl.errors import TarShardError
from coordl.sources.tar_headers import VALUE_BYTES, read_members

_SCHEMA = 1
_THREADS = 8
_NAME = re.compile(rb"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_DTYPES = {
    "head": np.dtype("<i8"), "firsts": np.dtype("<u4"), "fields": np.dtype("<u4"),
    "offsets": np.dtype("<u8"), "sizes": np.dtype("<u8"), "keys": np.dtype("u1"),
    "field_names": np.dtype("u1"), "values": np.dtype("u1"),
}  # fmt: skip


@dataclass(frozen=True)
class ShardIndex:
    """Samples and members of one tar; arrays read-only by convention.

    Attributes:
        path: of the tar. size: its bytes. mtime_ns: its time, when the headers were read.
        firsts: (N + 1,) uint32, the first member of each sample; the last is M.
        fields: (M,) uint32, positions in `field_names`.
        offsets, sizes: (M,) uint64, of the members' contents.
        keys: N keys, each followed by a zero byte. field_names: the fields' names, likewise.
        values: contents of members of at most VALUE_BYTES, one after the other.
    """

    path: str
    size: int
    mtime_ns: int
    firsts: NDArray[np.uint32]
    fields: NDArray[np.uint32]
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    keys: bytes
    field_names: bytes
    values: bytes

    def __len__(self) -> int:
        return len(self.firsts) - 1


def index_shards(paths: Sequence[str], folder: str) -> list[ShardIndex]:
    """The index of each tar: the one kept in `folder`, where tar and index still belong together,
    else one made from its headers, by some threads, and kept there where that can be.

    Raises:
        TarShardError: see read_members(); or a sample has the same field twice.
        OSError: a tar cannot be read.
    """
    with ThreadPoolExecutor(min(_THREADS, len(paths))) as pool:
        return list(pool.map(lambda path: _index_of(path, folder), paths))


def default_folder() -> str:
    """Where indices are kept: the user's own cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "coordl", "tar-index")


def _index_of(path: str, folder: str) -> ShardIndex:
    kept = os.path.join(folder, _kept_name(path))
    found = os.stat(path)
    index = _load(kept, path, found.st_size, found.st_mtime_ns)
    if index is None:
        index = make_index(path)
        with contextlib.suppress(OSError):  # no room or no right to: read the headers next time
            _keep(index, kept)
    return index


def _kept_name(path: str) -> str:
    real = os.path.realpath(path)
    return f"{blake2b(os.fsencode(real), digest_size=12).hexdigest()}.npz"


def make_index(path: str) -> ShardIndex:
    """From the headers of the tar."""
    members, found = read_members(path)
    firsts: list[int] = []
    fields: list[int] = []
    offsets: list[int] = []
    sizes: list[int] = []
    keys: list[bytes] = []
    values: list[bytes] = []
    numbers: dict[bytes, int] = {}
    seen: set[int] = set()
    for member in members:
        named = _NAME.fullmatch(member.name)
        if named is None:
            continue  # no sample's: a README, a hidden file
        key, field = named[1], named[2].lower()
        if not keys or key != keys[-1]:
            firsts.append(len(fields))
            keys.append(key)
            seen.clear()
        number = numbers.setdefault(field, len(numbers))
        if number in seen:
            raise TarShardError(
                f"{path}, byte {member.offset:,}: sample {_text(key)!r} has its field "
                f"{_text(field)!r} twice. Samples that follow one another need names that differ "
                "before the first '.'."
            )
        seen.add(number)
        fields.append(number)
        offsets.append(member.offset)
        sizes.append(member.size)
        values.append(member.value)
    if not keys:
        raise TarShardError(
            f"{path} holds no samples: none of its {len(members):,} files has a name such as "
            "'000017.jpg'."
        )
    return ShardIndex(
        path,
        found.st_size,
        found.st_mtime_ns,
        np.array([*firsts, len(fields)], np.uint32),
        np.array(fields, np.uint32),
        np.array(offsets, np.uint64),
        np.array(sizes, np.uint64),
        _joined(keys),
        _joined(list(numbers)),
        b"".join(values),
    )


# -- kept ------------------------------------------------------------------------------------


def _keep(index: ShardIndex, path: str) -> None:
    """Whole or not at all: others may read it meanwhile."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    columns: dict[str, Any] = {
        "head": np.array([_SCHEMA, VALUE_BYTES, index.size, index.mtime_ns], "<i8"),
        **{name: getattr(index, name) for name in ("firsts", "fields", "offsets", "sizes")},
        **{
            name: np.frombuffer(getattr(index, name), np.uint8)
            for name in ("keys", "field_names", "values")
        },
    }
    descriptor, unfinished = tempfile.mkstemp(".tmp", "index-", os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **columns)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _load(kept: str, path: str, size: int, mtime_ns: int) -> ShardIndex | None:
    """None where there is none, it is damaged, or the tar is another by now."""
    try:
        with np.load(kept, allow_pickle=False) as file:
            columns = {name: file[name] for name in _DTYPES}
    except Exception:  # whatever NumPy and zipfile raise over damaged files: it can be made anew
        return None
    if any(columns[name].ndim != 1 or columns[name].dtype != _DTYPES[name] for name in columns):
        return None
    if columns["head"].tolist() != [_SCHEMA, VALUE_BYTES, size, mtime_ns]:
        return None
    texts = {name: columns[name].tobytes() for name in ("keys", "field_names", "values")}
    numbers = {name: columns[name] for name in ("firsts", "fields", "offsets", "sizes")}
    index = ShardIndex(path, size, mtime_ns, **numbers, **texts)
    return index if _is_sound(index) else None


def _is_sound(index: ShardIndex) -> bool:
    """Whether it can be used without looking at any number again; a checksum stops no liar."""
    firsts, sizes = index.firsts, index.sizes
    members, names = len(sizes), index.field_names.count(0)
    return bool(
        len(firsts) > 1
        and len(index.fields) == len(index.offsets) == members
        and firsts[0] == 0
        and firsts[-1] == members
        and (firsts[1:] > firsts[:-1]).all()
        and (index.fields < names).all()
        and (sizes <= index.size).all()
        and (index.offsets <= index.size - sizes).all()
        and len(index.values) == int(sizes[sizes <= VALUE_BYTES].sum())
        and index.keys.count(0) == len(firsts) - 1
        and index.keys.endswith(b"\0")
        and index.field_names.endswith(b"\0")
    )


def _joined(texts: list[bytes]) -> bytes:
    return b"".join(text + b"\0" for text in texts)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


# -- all shards ------------------------------------------------------------------------------


class TarSamples:
    """The samples of many tars, numbered through.

    Attributes:
        paths: of the tars. sizes, mtimes_ns: (S,) int64, of them, when they were indexed.
        shards: (N,) uint32, which tar a sample is in.
        offsets, lengths: (M,) uint64, of the members' contents.
        field_names: names of fields.
    """

    def __init__(self, indices: Sequence[ShardIndex]) -> None:
        self.paths = [index.path for index in indices]
        self.sizes = np.array([index.size for index in indices], np.int64)
        self.mtimes_ns = np.array([index.mtime_ns for index in indices], np.int64)
        self.shards = np.repeat(
            np.arange(len(indices), dtype=np.uint32), [len(index) for index in indices]
        )
        self.offsets = np.concatenate([index.offsets for index in indices])
        self.lengths = np.concatenate([index.sizes for index in indices])
        counts = [np.diff(index.firsts) for index in indices]
        self._sample_of = np.repeat(np.arange(len(self.shards)), np.concatenate(counts))
        numbers: dict[str, int] = {}
        fields = []
        for index in indices:
            names = [_text(name) for name in index.field_names.split(b"\0")[:-1]]
            known = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.uint32)
            fields.append(known[index.fields])
        self._fields = np.concatenate(fields)
        self.field_names: list[str] = list(numbers)
        self._keys = b"".join(index.keys for index in indices)
        self._key_ends = np.flatnonzero(np.frombuffer(self._keys, np.uint8) == 0)
        self._values = b"".join(index.values for index in indices)
        kept = np.where(self.lengths <= VALUE_BYTES, self.lengths, 0)
        self._value_ends = np.cumsum(kept, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.shards)

    def key(self, sample: int) -> str:
        begin = self._key_ends[sample - 1] + 1 if sample else 0
        return os.fsdecode(self._keys[begin : self._key_ends[sample]])

    def members(self, field: str) -> NDArray[np.int64]:
        """(N,): the member that is this field of each sample; -1 where it has none."""
        found = np.full(len(self), -1, np.int64)
        if field in self.field_names:
            rows = np.flatnonzero(self._fields == self.field_names.index(field))
            found[self._sample_of[rows]] = rows
        return found

    def field(self, member: int) -> str:
        return self.field_names[int(self._fields[member])]

    def fields_of(self, sample: int) -> list[str]:
        begin, end = np.searchsorted(self._sample_of, [sample, sample + 1])
        return [self.field(member) for member in range(begin, end)]

    def field_counts(self, members: NDArray[np.int64]) -> dict[str, int]:
        """How many of these members are which field."""
        counts = np.bincount(self._fields[members], minlength=len(self.field_names))
        return dict(zip(self.field_names, counts.tolist(), strict=True))

    def value(self, member: int) -> bytes:
        """The content of a member of at most VALUE_BYTES."""
        length = int(self.lengths[member])
        end = int(self._value_ends[member])
        return self._values[end - length : end]
