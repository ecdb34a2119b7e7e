"""What a request and a reply look like. All of it is checked by who gets it; nothing is pickled.

ticket of DoGet    magic, then the items' keys
reply              one record batch: item (null: not held), checksum of key and bytes
DoPut              descriptor: the magic; batches with the keys before the same columns
DoAction "hello", "members", "stats": JSON both ways, see server.py
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

VERSION = 1
MAGIC = b"COORDLP" + bytes([VERSION])
MOST_KEYS = 4096  # of one request
MOST_BYTES = 256 << 20  # of one message; more is not sent, and refused by who gets it
HELLO_BYTES = 4096  # of either side
TOLD_BYTES = 1 << 20  # of any other action

_VIEW = struct.Struct("<i4sii")  # length, first bytes, buffer, offset
_INLINE = 12  # bytes of an item that lies in its view itself


class WireError(ValueError):
    """A message is not what it should be."""


@functools.cache
def reply_schema() -> pa.Schema:
    return pa.schema([("item", pa.binary_view()), ("checksum", pa.uint64())])


@functools.cache
def put_schema() -> pa.Schema:
    return pa.schema([("high", pa.uint64()), ("low", pa.uint64()), *reply_schema()])


def ticket_of(keys: NDArray[np.uint64]) -> bytes:
    """(N, 2) keys, N up to MOST_KEYS, as the ticket of a request."""
    return MAGIC + np.ascontiguousarray(keys, "<u8").tobytes()


def keys_of(ticket: bytes) -> NDArray[np.uint64]:
    """Raises WireError: no ticket of this version, or too long."""
    if not ticket.startswith(MAGIC):
        raise WireError(f"no request of version {VERSION}: update coordl on both servers")
    body = memoryview(ticket)[len(MAGIC) :]
    if len(body) % 16 or len(body) > 16 * MOST_KEYS:
        raise WireError(
            f"a request names up to {MOST_KEYS} keys of 16 bytes, got {len(body)} bytes"
        )
    return np.frombuffer(body, "<u8").astype(np.uint64).reshape(-1, 2)


def views_of(items: Sequence[Any]) -> pa.Array:
    """A binary_view array over memoryviews or bytes, or None; only very short ones are copied."""
    views, held = bytearray(), np.zeros(len(items), bool)
    buffers: list[pa.Buffer] = []
    for at, item in enumerate(items):
        if item is None:
            views += bytes(16)
            continue
        held[at] = True
        size = len(item)
        if size <= _INLINE:
            views += struct.pack("<i12s", size, bytes(item))
            continue
        views += _VIEW.pack(size, bytes(item[:4]), len(buffers), 0)
        buffers.append(pa.py_buffer(item))
    validity = None if held.all() else pa.py_buffer(np.packbits(held, bitorder="little"))
    return pa.Array.from_buffers(
        pa.binary_view(), len(items), [validity, pa.py_buffer(bytes(views)), *buffers]
    )


def _numbers_of(numbers: Sequence[int]) -> pa.Array:
    """Not by pa.array(), which imports pandas where that is installed: a second, in each worker."""
    data = np.array(numbers, "<u8")
    return pa.Array.from_buffers(pa.uint64(), len(data), [None, pa.py_buffer(data)])


def reply_of(items: Sequence[Any], checksums: Sequence[int]) -> pa.RecordBatch:
    columns = [views_of(items), _numbers_of(checksums)]
    return pa.RecordBatch.from_arrays(columns, schema=reply_schema())


def put_of(items: Sequence[tuple[int, int, Any]], checksums: Sequence[int]) -> pa.RecordBatch:
    high, low, data = ([item[at] for item in items] for at in range(3))
    columns = [_numbers_of(high), _numbers_of(low), views_of(data), _numbers_of(checksums)]
    return pa.RecordBatch.from_arrays(columns, schema=put_schema())


def checked(batch: Any, schema: pa.Schema, rows: int | None = None) -> pa.RecordBatch:
    """The batch, whose every offset and length lies within its buffers.

    Raises:
        WireError: it is of another schema or length, or damaged.
    """
    if batch.schema != schema:
        raise WireError(f"a message with the columns {batch.schema.names}, not {schema.names}")
    if rows is not None and batch.num_rows != rows:
        raise WireError(f"{batch.num_rows} items came for {rows} asked for")
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise WireError(f"a message is damaged: {error}") from error
    if batch.num_rows > MOST_KEYS or any(column.null_count for column in list(batch.columns)[:-2]):
        raise WireError("a message with too many items, or without their keys")
    return batch


def item_at(batch: pa.RecordBatch, row: int) -> tuple[memoryview, int] | None:
    """(bytes, checksum) of a checked batch's row, not copied; None where there is none."""
    item = batch.column("item")[row]
    checksum = batch.column("checksum")[row]
    if not item.is_valid or not checksum.is_valid:
        return None
    return memoryview(item.as_buffer()), checksum.as_py()
