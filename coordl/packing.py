"""Image folders into packed data sets: what `coordl pack` does.

Threads read and recode, one thread writes, in the order of the data set, so the result depends on
nothing but the source and the options. docs/packed-data.md has the formats.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coordl import _native
from coordl.errors import ItemError, PackedDataError
from coordl.fetch.failure import unreadable_item
from coordl.fetch.shard_writer import (
    TEMPORARY,
    ShardWriter,
    at_step,
    sync_folder,
    write_json,
    write_whole,
)
from coordl.fetch.shards import (
    FORMS,
    INDEX,
    MANIFEST,
    SCHEMA,
    STATE,
    Index,
    PackedData,
    decode_index,
    encode_index,
    join_parts,
    open_packed,
    part_name,
    read_manifest,
    shard_fault,
    shard_name,
)
from coordl.sources.image_folder import ImageFolder

SHARD_BYTES = 256 << 20
FEWEST_SHARD_BYTES = 64 << 10

_AHEAD = 4  # items in hand per thread: a huge one must not stop the others
_OURS = re.compile(r"(shard-\d{5,}\.(cds|cdp)|manifest\.json|index\.cdi|unfinished\.json)(\.tmp)?")

T = TypeVar("T")
Tell = Callable[[int, int], None]  # so many items more are done, and so many bytes of files


def tell_nobody(items: int, size: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Source:
    """An image folder as it is listed now: names below its root, (N,) int64 sizes and times."""

    root: str
    classes: list[str]
    names: list[str]
    targets: list[int]
    sizes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]

    def path(self, row: int) -> str:
        return os.path.join(self.root, self.names[row])


@dataclass(frozen=True)
class Order:
    """What is to be packed, and how."""

    source: Source
    form: str = "packed"
    shard_bytes: int = SHARD_BYTES

    def id(self) -> bytes:
        """16 bytes that change with everything that changes the result."""
        source = self.source
        digest = blake2b(f"{SCHEMA} {self.form} {self.shard_bytes}".encode(), digest_size=16)
        for texts in (source.classes, source.names):
            digest.update(b"".join(os.fsencode(text) + b"\0" for text in texts) + b"\0")
        for numbers in (source.targets, source.sizes, source.mtimes_ns):
            digest.update(np.asarray(numbers, "<i8").tobytes())
        return digest.digest()


@dataclass(frozen=True)
class Outcome:
    """What pack() found or made.

    Attributes:
        resumed_items: packed by earlier runs that did not come to their end.
        already: it was packed before, from the same files.
        no_pictures: names of the files packed by this run that Pillow does not know: they are kept
            as they are, and whoever loads them gets its error.
    """

    data: PackedData
    resumed_items: int = 0
    already: bool = False
    no_pictures: tuple[str, ...] = ()

    def stored_as_they_are(self) -> list[str]:
        """Names of the files that have no packed form."""
        rows = np.flatnonzero(self.data.index.forms == FORMS.index("original"))
        return [self.data.index.names[row] for row in rows.tolist()]


def list_source(root: str | os.PathLike[str]) -> Source:
    """Lists an image folder, in the order coordl.ImageFolder has it.

    Raises:
        FileNotFoundError, NotADirectoryError: as ImageFolder does.
        ItemError: a file cannot be looked at; names index and path.
    """
    folder = ImageFolder(root)
    paths = [path for path, _ in folder.samples]
    sizes, mtimes_ns, errnos = _native.stat_files(paths, 16)
    bad = np.flatnonzero(errnos)
    if bad.size:
        row = int(bad[0])
        raise unreadable_item(int(errnos[row]), row, paths[row])
    cut = len(os.path.join(folder.root, ""))
    names = [path[cut:] for path in paths]
    return Source(folder.root, folder.classes, names, folder.targets, sizes, mtimes_ns)


def pack(
    order: Order,
    out: str | os.PathLike[str],
    *,
    jobs: int = 1,
    force: bool = False,
    tell: Tell = tell_nobody,
) -> Outcome:
    """Packs an image folder; goes on where an earlier run stopped.

    Args:
        out: folder of the packed data set; made where it is not there.
        jobs: threads that read and recode.
        force: drop a packed data set, finished or not, that is there already.
        tell: called with progress.

    Raises:
        PackedDataError: `out` holds something else, or packed from other files; says what differs.
        ItemError: a file cannot be read or changed since it was listed; names index and path. What
            is finished stays, as after any exception.
    """
    out = os.fspath(out)
    _check_apart(order.source.root, out)
    os.makedirs(out, exist_ok=True)
    with _locked(out):
        id = order.id()
        if _is_finished(out, order, id, force):
            _sweep(out, finished=True)
            return Outcome(open_packed(out), already=True)
        _begin(out, order, id, force)
        parts = _finished_parts(out, id, order)
        resumed = sum(len(part) for part in parts)
        tell(resumed, int(order.source.sizes[:resumed].sum()))
        unknown: list[str] = []
        parts = _write_shards(order, out, id, parts, jobs, tell, unknown)
        _finish(out, order, join_parts(parts))
        return Outcome(open_packed(out), resumed, no_pictures=tuple(unknown))


def _check_apart(root: str, out: str) -> None:
    inside = os.path.join(os.path.realpath(root), "")
    if os.path.join(os.path.realpath(out), "").startswith(inside):
        raise PackedDataError(
            f"{out} lies inside {root}, where it would be taken for a class. "
            "Name a folder elsewhere."
        )


@contextmanager
def _locked(out: str) -> Iterator[None]:
    fd = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise PackedDataError(f"Another coordl pack is writing into {out}. Wait for it.") from None
    except OSError:  # a file system without such locks
        pass
    try:
        yield
    finally:
        os.close(fd)


def _is_finished(out: str, order: Order, id: bytes, force: bool) -> bool:
    """Whether `out` is finished and of these files; an error where it is of others."""
    if force or read_manifest(out) is None:
        return False
    data = open_packed(out)
    if data.index.id == id:
        return True
    raise PackedDataError(
        f"{out} is packed already, and {_difference(data, order)}. Name another folder, or "
        "--force packs anew in its place."
    )


def _difference(data: PackedData, order: Order) -> str:
    made = data.manifest
    if (made.get("form"), made.get("shard_bytes")) != (order.form, order.shard_bytes):
        return f"with --form {made.get('form')} and shards of {made.get('shard_bytes'):,} bytes"
    index, source = data.index, order.source
    before = _states(index.names, index.source_sizes, index.source_mtimes_ns)
    now = _states(source.names, source.sizes, source.mtimes_ns)
    said = []
    for what, names in (
        ("new", [name for name in now if name not in before]),
        ("gone", [name for name in before if name not in now]),
        ("changed", [name for name in now if name in before and now[name] != before[name]]),
    ):
        if names:
            said.append(f"{len(names):,} {what} (e.g. {names[0]})")
    return f"{source.root} is another now: files {', '.join(said) or 'in another order'}"


def _states(names: list[str], sizes: Any, mtimes_ns: Any) -> dict[str, tuple[int, int]]:
    states = zip(sizes.tolist(), mtimes_ns.tolist(), strict=True)
    return dict(zip(names, states, strict=True))


def _begin(out: str, order: Order, id: bytes, force: bool) -> None:
    """Makes `out` ready to be written; refuses what it must not touch."""
    path = os.path.join(out, STATE)
    foreign = [name for name in os.listdir(out) if not _OURS.fullmatch(name)]
    if foreign:
        raise PackedDataError(
            f"{out} holds other files (e.g. {sorted(foreign)[0]}). Name a new or empty folder."
        )
    known = _read_state(path)
    if known not in (None, id.hex()) and not force:
        raise PackedDataError(
            f"{out} holds a packed data set that was begun from other files or with other options, "
            "or the source changed since. --force starts anew."
        )
    if known is None and not force and os.listdir(out) not in ([], [STATE + TEMPORARY]):
        raise PackedDataError(
            f"{out} holds parts of a packed data set without {MANIFEST}. --force starts anew."
        )
    if force:
        _sweep(out, finished=False)
    write_json(path, {"format": "coordl unfinished packed data", "schema": SCHEMA, "id": id.hex()})
    at_step("pack:begun")


def _read_state(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return str(json.loads(file.read())["id"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return "damaged"


def _finished_parts(out: str, id: bytes, order: Order) -> list[Index]:
    parts: list[Index] = []
    while True:
        number = len(parts)
        path = os.path.join(out, part_name(number))
        shard = os.path.join(out, shard_name(number))
        try:
            with open(path, "rb") as file:
                part = decode_index(file.read(), path)
        except (FileNotFoundError, PackedDataError):
            return parts
        if part.id != id or shard_fault(shard, id, number, int(part.shard_sizes[0])):
            return parts
        parts.append(part)


def _write_shards(
    order: Order, out: str, id: bytes, parts: list[Index], jobs: int, tell: Tell, unknown: list[str]
) -> list[Index]:
    source, parts = order.source, list(parts)
    writer: ShardWriter | None = None
    pool = ThreadPoolExecutor(jobs, "coordl-pack")
    rows = range(sum(len(part) for part in parts), len(source.names))
    try:
        for row, (item, form) in in_order(pool, lambda row: _recoded(order, row), rows, jobs):
            if writer is not None and not writer.fits(len(item), order.shard_bytes):
                parts.append(writer.finish())
                writer = None
            if writer is None:
                writer = ShardWriter(out, len(parts), id, source.classes)
            if form is None:
                unknown.append(source.names[row])
                form = "original"
            size = int(source.sizes[row])
            mtime_ns = int(source.mtimes_ns[row])
            writer.add(item, form, source.names[row], source.targets[row], size, mtime_ns)
            tell(1, size)
        if writer is not None:
            parts.append(writer.finish())
        return parts
    finally:
        pool.shutdown(cancel_futures=True)
        if writer is not None:
            writer.abandon()


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[int], T], rows: range, jobs: int
) -> Iterator[tuple[int, T]]:
    """(row, result) of every row, a bounded number of them in hand."""
    waiting: deque[tuple[int, Future[T]]] = deque()
    for row in rows:
        waiting.append((row, pool.submit(work, row)))
        if len(waiting) >= jobs * _AHEAD:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _recoded(order: Order, row: int) -> tuple[bytes, str | None]:
    """The item and its form; None: it is no picture, and kept as it is."""
    source, path = order.source, order.source.path(row)
    try:
        data, size, mtime_ns = _native.read_identified(path)
    except OSError as error:
        raise unreadable_item(error.errno or 0, row, path) from error
    except EOFError as error:
        raise ItemError(f"sample {row}: {error}. Let nothing write there.", row, path) from error
    if (size, mtime_ns) != (source.sizes[row], source.mtimes_ns[row]):
        raise ItemError(
            f"sample {row}: {path} changed since it was listed. Run the same again once nothing "
            "writes there.",
            row,
            path,
        )
    item = _native.recode(data, order.form, keep_header=True)
    if item is None or not _native.can_unpack(item):
        return data, "original" if _is_picture(data) else None
    return item, order.form


def _is_picture(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).close()
    except Image.DecompressionBombError:
        return True  # whoever loads it decides
    except (OSError, SyntaxError, ValueError):  # Pillow's readers of broken headers raise all three
        return False
    return True


def _finish(out: str, order: Order, index: Index) -> None:
    write_whole(os.path.join(out, INDEX), encode_index(index))
    at_step("index:renamed")
    manifest = {
        "format": "coordl packed data",
        "schema": SCHEMA,
        "id": index.id.hex(),
        "form": order.form,
        "shard_bytes": order.shard_bytes,
        "items": len(index),
        "items_by_form": index.form_counts(),
        "classes": len(index.classes),
        "shards": len(index.shard_sizes),
        "bytes": int(index.shard_sizes.sum()),
        "source_bytes": int(index.source_sizes.sum()),
    }
    write_json(os.path.join(out, MANIFEST), manifest)
    at_step("manifest:renamed")
    _sweep(out, finished=True)
    at_step("pack:swept")


def _sweep(out: str, finished: bool) -> None:
    """Removes what only the work needed; with `finished` False all of ours, manifest first."""
    names = sorted(name for name in os.listdir(out) if _OURS.fullmatch(name))
    names.sort(key=lambda name: name != MANIFEST)
    keep: set[str] = set()
    if finished:
        shards = len(open_packed(out).index.shard_sizes)
        keep = {MANIFEST, INDEX, *(shard_name(number) for number in range(shards))}
    for name in names:
        if name not in keep:
            os.unlink(os.path.join(out, name))
    sync_folder(out)
