"""Writes PNGs that Pillow reads and never writes: any depth, colour type, filter, interlaced."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [
    *[(0, depth) for depth in (1, 2, 4, 8)],
    *[(3, depth) for depth in (1, 2, 4, 8)],
    *[(colour, depth) for colour in (2, 4, 6) for depth in (8, 16)],
]
_ADAM7 = [
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
]  # fmt: skip


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def chunks(item: bytes) -> list[tuple[bytes, bytes]]:
    """(name, body) of every chunk."""
    found, at = [], len(SIGNATURE)
    while at < len(item):
        (length,) = struct.unpack_from(">I", item, at)
        found.append((item[at + 4 : at + 8], item[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def joined(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(chunk(name, body) for name, body in parts)


def with_chunk(item: bytes, name: bytes, body: bytes, before: bytes = b"IDAT") -> bytes:
    """The PNG with one more chunk before the first one of that name."""
    parts = chunks(item)
    at = [part[0] for part in parts].index(before)
    return joined([*parts[:at], (name, body), *parts[at:]])


def write_png(
    size: tuple[int, int],
    colour: int,
    depth: int,
    *,
    chance: random.Random,
    interlaced: bool = False,
    filters: tuple[int, ...] = (0, 1, 2, 3, 4),
    entries: int | None = None,
    part_bytes: int = 1000,
) -> bytes:
    """A PNG of random bytes, so that every filter meets every value.

    Args:
        filters: each row takes one of them.
        entries: of the palette; None: as many as the depth has values.
        part_bytes: size of an IDAT chunk.
    """
    width, height = size
    bits = CHANNELS[colour] * depth
    raw = b""
    for x, y, dx, dy in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            length = (columns * bits + 7) // 8
            raw += b"".join(
                bytes([chance.choice(filters)]) + chance.randbytes(length) for _ in range(rows)
            )
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [(b"IHDR", header)]
    if colour == 3:
        parts.append((b"PLTE", chance.randbytes(3 * (entries or 1 << depth))))
    stream = zlib.compress(raw)
    starts = range(0, len(stream), part_bytes)
    parts += [(b"IDAT", stream[at : at + part_bytes]) for at in starts]
    return joined([*parts, (b"IEND", b"")])
