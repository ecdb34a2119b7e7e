"""Tar files by their headers alone: where each member's bytes lie, without reading them.

The formats are POSIX ustar and pax, GNU (long names, large sizes) and the old one before them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from coordl.errors import TarShardError

BLOCK = 512
# A member this small (a class number, an id) comes along with its header: it costs no read then.
VALUE_BYTES = 64

_WINDOW = 4096  # what a look at a header reads: often the next small members too
_LONGEST_HEADER = 1 << 20  # of a long name or pax records
_ZEROS = bytes(BLOCK)
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"), (b"PK\x03\x04", "zip"),
)  # fmt: skip
_FILES = b"0\x007"  # plain, of the old format, contiguous
_SKIPPED = b"5346VD"  # folders, devices, pipes, a volume's name, GNU's listing of a folder


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: its path there, bytes.
        offset, size: where its content lies in the tar, in bytes.
        value: the content of one of at most VALUE_BYTES; else empty.
    """

    name: bytes
    offset: int
    size: int
    value: bytes


def read_members(path: str) -> tuple[list[Member], os.stat_result]:
    """The plain files in a tar, in its order, and what the tar was when they were looked at.

    Raises:
        TarShardError: no tar, a compressed, damaged, cut one, or one that holds what cannot be read
            by range (sparse files, links); names the tar and the offset.
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise TarShardError(f"{path} is no plain file: shards are read by range.")
        # Members' contents are passed over: what the kernel would read ahead is not wanted.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        members = list(_Walk(path, file.fileno(), found.st_size))
        after = os.fstat(file.fileno())
    if (after.st_size, after.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        raise TarShardError(f"{path} changed while its headers were read. Is it still written to?")
    return members, found


class _Walk:
    """From header to header; errors name the offset of the one they concern."""

    def __init__(self, path: str, descriptor: int, size: int) -> None:
        self.path, self.descriptor, self.size = path, descriptor, size
        self.at = 0  # of the header in hand
        self._window, self._window_at = b"", 0

    def __iter__(self) -> Iterator[Member]:
        name: bytes | None = None  # what extended headers say of the next member
        size: int | None = None
        self._check_beginning()
        while (header := self._header()) != _ZEROS:
            kind, begin = header[156:157], self.at + BLOCK
            if kind in b"xgLK":
                records = self._content(begin, self._number(header[124:136], "size"))
                if kind == b"x":
                    name, size = self._pax(records, name)
                elif kind == b"g":
                    self._pax(records, None)
                elif kind == b"L":
                    name = records.rstrip(b"\0")
                self.at = begin + _padded(len(records))
                continue
            length = self._number(header[124:136], "size") if size is None else size
            whole = name or _name(header)
            stored = 0 if kind in b"123456" else length
            if begin + stored > self.size:
                self._fail(
                    f"{_shown(whole)} of {stored:,} bytes ends beyond the file's "
                    f"{self.size:,}. The tar is cut short: copy it again"
                )
            if self._is_file(kind, whole):
                value = self._read(begin, length) if length <= VALUE_BYTES else b""
                yield Member(whole, begin, length, value)
            self.at, name, size = begin + _padded(stored), None, None
        self._check_end()

    def _is_file(self, kind: bytes, name: bytes) -> bool:
        if kind in _FILES:
            return not name.endswith(b"/")  # the old format's folders
        if kind in _SKIPPED:
            return False
        if kind in b"12":
            self._fail(
                f"{_shown(name)} is a link to another member. Make the tar with "
                "--hard-dereference --dereference"
            )
        if kind == b"S":
            self._fail(_SPARSE.format(_shown(name)))
        self._fail(f"{_shown(name)} is a member of type {kind!r}, which no range of bytes can give")

    def _check_beginning(self) -> None:
        begin = self._read(0, min(8, self.size))
        for magic, kind in _COMPRESSED:
            if begin.startswith(magic):
                self._fail(
                    f"it is compressed ({kind}), which cannot be read by range. Unpack it into a "
                    "plain tar: pictures hardly get smaller by compressing them twice"
                )
        if self.size == 0:
            self._fail("the file is empty")

    def _check_end(self) -> None:
        """After the first block of zeros there is only padding."""
        at = self.at + BLOCK
        while at < self.size:
            rest = os.pread(self.descriptor, 1 << 20, at)
            if rest.count(0) != len(rest):
                self._fail(
                    "the archive ends here, and more than zeros comes after it. Tars that were "
                    "joined by cat have to be shards of their own"
                )
            if not rest:
                return
            at += len(rest)

    def _header(self) -> bytes:
        if self.at + BLOCK > self.size:
            self._fail(
                "the file ends here, without the archive's end. The tar is cut short: copy it again"
            )
        header = self._read(self.at, BLOCK)
        if header == _ZEROS:
            return header
        known = self._number(header[148:156], "checksum")
        rest = header[:148] + b" " * 8 + header[156:]
        if known != sum(rest) and known != sum(rest) - 256 * sum(b > 127 for b in rest):
            self._fail(
                "it is no tar file"
                if self.at == 0
                else "the header's checksum is wrong. The tar is damaged: copy it again"
            )
        return header

    def _number(self, field: bytes, what: str) -> int:
        if field[0] in (0x80, 0xFF):  # GNU's binary numbers; negative ones are none we want
            number = int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
        else:
            try:
                number = int(field.split(b"\0", 1)[0].strip(b" ") or b"0", 8)
            except ValueError:
                number = -1
        if number < 0:
            self._fail("it is no tar file" if self.at == 0 else f"the header's {what} is no number")
        return number

    def _pax(self, records: bytes, name: bytes | None) -> tuple[bytes | None, int | None]:
        """(name, size) where the records give them. Each is b"<its length> <key>=<value>\\n"."""
        size = None
        while records:
            digits, space, _ = records.partition(b" ")
            length = int(digits) if space and _is_count(digits) else 0
            key, equals, value = records[len(digits) + 1 : length - 1].partition(b"=")
            if not equals or records[length - 1 : length] != b"\n":
                self._fail("its extended header (pax) is damaged")
            if key == b"path" and b"\0" in value:
                self._fail("a name in its extended header (pax) is damaged")
            elif key == b"path":
                name = value
            elif key == b"size":
                size = int(value) if _is_count(value) else self.size + 1
            elif key.startswith(b"GNU.sparse."):
                self._fail(_SPARSE.format(_shown(name or b"a member")))
            records = records[length:]
        return name, size

    def _content(self, begin: int, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            self._fail(f"its extended header has {size:,} bytes. The tar is damaged")
        if begin + size > self.size:
            self._fail("an extended header ends beyond the file. It is cut short: copy it again")
        return self._read(begin, size)

    def _read(self, at: int, size: int) -> bytes:
        skip = at - self._window_at
        if skip < 0 or skip + size > len(self._window):
            self._window = os.pread(self.descriptor, max(size, _WINDOW), at)
            self._window_at, skip = at, 0
            if len(self._window) < size:
                self._fail("the file became shorter while it was read")
        return self._window[skip : skip + size]

    def _fail(self, what: str) -> NoReturn:
        raise TarShardError(f"{self.path}, byte {self.at:,}: {what}.")


_SPARSE = "{} is a sparse file, whose bytes are no range. Make the tar without --sparse"


def _is_count(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) < 20


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":  # GNU's has other things in the prefix's place
        prefix = header[345:500].split(b"\0", 1)[0]
        return prefix + b"/" + name if prefix else name
    return name


def _shown(name: bytes) -> str:
    return name.decode(errors="replace")
