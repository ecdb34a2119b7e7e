"""Tars by their headers: what the standard library's reader finds, or an error that says where."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import threading
from pathlib import Path

import pytest
from tars import write_tar

from coordl.errors import TarShardError
from coordl.sources.tar_headers import VALUE_BYTES, read_members

LONG = "a/" * 60 + "name that no old header has room for, größer.jpg"
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def assert_as_tarfile(path: Path) -> None:
    with tarfile.open(path) as tar:
        theirs = [
            (os.fsencode(info.name), info.offset_data, info.size)
            for info in tar.getmembers()
            if info.isreg()
        ]
    ours, found = read_members(str(path))
    assert [member[:3] for member in ours] == theirs
    content = path.read_bytes()
    for member in ours:
        small = member.size <= VALUE_BYTES
        end = member.offset + member.size
        assert member.value == (content[member.offset : end] if small else b"")
    assert (found.st_size, found.st_mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_members_are_where_the_standard_library_finds_them(
    tmp_path: Path, format: int, seed: int
) -> None:
    draw = random.Random(seed)
    sizes = [0, 1, 63, 64, 65, 511, 512, 513, 4095, 9000]
    names = [f"d{draw.randrange(3)}/{i:03}.{draw.choice(['jpg', 'cls'])}" for i in range(40)]
    members = [(name, draw.randbytes(draw.choice(sizes))) for name in names]
    assert_as_tarfile(write_tar(tmp_path / "x.tar", members, format))


@pytest.mark.parametrize("format", FORMATS[1:])
def test_long_names_and_others_than_ascii_are_read(tmp_path: Path, format: int) -> None:
    members = [(LONG, b"1"), ("b.jpg", b"2"), ("ü.jpg", b"3"), (LONG + "x", b"4")]
    assert_as_tarfile(write_tar(tmp_path / "x.tar", members, format))


def test_a_name_in_two_parts_is_joined(tmp_path: Path) -> None:
    assert_as_tarfile(write_tar(tmp_path / "x.tar", [("p" * 100 + "/" + "n" * 99, b"1")]))


def test_folders_and_devices_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("d")
            info.type = kind
            tar.addfile(info)
        info = tarfile.TarInfo("a.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert [member.name for member in read_members(str(path))[0]] == [b"a.jpg"]


@pytest.mark.slow
def test_a_size_beyond_the_octal_field_is_read(tmp_path: Path) -> None:
    """In binary, as GNU writes it from 8 GiB on; the file itself has a hole there."""
    info = tarfile.TarInfo("large.bin")
    info.size = 9 << 30
    path = tmp_path / "x.tar"
    with open(path, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.seek(info.size, os.SEEK_CUR)
        file.write(bytes(1024))
    assert_as_tarfile(path)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    members = [("a.jpg", b"x" * 700), ("a.cls", b"7"), ("b.jpg", b"y" * 512), ("b.cls", b"1")]
    return write_tar(tmp_path / "x.tar", members, tarfile.PAX_FORMAT)


def test_wherever_it_is_cut_it_is_an_error_with_file_and_offset(tar: Path) -> None:
    whole = tar.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for size in (1, 511, 512, *range(513, end, 217), -(-end // 512) * 512):
        tar.write_bytes(whole[:size])
        with pytest.raises(TarShardError, match=r"x\.tar, byte [\d,]+: .*(cut short|no tar)"):
            read_members(str(tar))


def test_a_flipped_bit_in_a_header_is_an_error_at_its_offset(tar: Path) -> None:
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened:
        offset = opened.getmembers()[2].offset_data - 512
    damaged = bytearray(whole)
    damaged[offset + 3] ^= 4
    tar.write_bytes(damaged)
    with pytest.raises(TarShardError, match=rf"byte {offset:,}: the header's checksum is wrong"):
        read_members(str(tar))


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_is_read_or_refused_and_nothing_else(tar: Path, seed: int) -> None:
    draw = random.Random(seed)
    data = bytearray(tar.read_bytes())
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data))
        data[at] = draw.randrange(256)
        if draw.random() < 0.7:  # with a right checksum, so that the damage gets further
            mend(data, at // 512 * 512)
    tar.write_bytes(data)
    try:
        members, _ = read_members(str(tar))
    except TarShardError as error:
        assert "x.tar, byte" in str(error)
    else:
        assert all(member.offset + member.size <= len(data) for member in members)


def mend(data: bytearray, at: int) -> None:
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


@pytest.mark.parametrize(
    ("compress", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")]
)
def test_a_compressed_tar_is_refused(tar: Path, compress, name: str) -> None:
    tar.write_bytes(compress(tar.read_bytes()))
    with pytest.raises(TarShardError, match=rf"x\.tar, byte 0: it is compressed \({name}\)"):
        read_members(str(tar))


def with_member(path: Path, kind: bytes, pax: dict[str, str] | None = None) -> Path:
    info = tarfile.TarInfo("odd.jpg")
    info.type = kind
    info.linkname = "a.jpg" if kind in b"12" else ""
    info.pax_headers = pax or {}
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(10240))
    return path


@pytest.mark.parametrize(
    ("kind", "pax", "message"),
    [
        (b"S", None, r"odd\.jpg is a sparse file.*without --sparse"),
        (b"0", {"GNU.sparse.major": "1"}, "sparse file"),
        (b"1", None, r"odd\.jpg is a link.*--hard-dereference"),
        (b"2", None, r"odd\.jpg is a link"),
        (b"M", None, r"odd\.jpg is a member of type b'M'"),
    ],
)
def test_what_no_range_of_bytes_can_give_is_refused(
    tmp_path: Path, kind: bytes, pax: dict[str, str] | None, message: str
) -> None:
    path = with_member(tmp_path / "x.tar", kind, pax)
    with pytest.raises(TarShardError, match=rf"x\.tar, byte [\d,]+: .*{message}"):
        read_members(str(path))


@pytest.mark.parametrize("records", [b"12 path=a\n", b"path=a\n", b"9 path\n", b"999 path=abc\n"])
def test_damaged_extended_headers_are_refused(tmp_path: Path, records: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", len(records)
    header = info.tobuf(tarfile.USTAR_FORMAT)
    path = tmp_path / "x.tar"
    path.write_bytes(header + records.ljust(512, b"\0") + bytes(1024))
    with pytest.raises(TarShardError, match=r"\(pax\) is damaged"):
        read_members(str(path))


def test_tars_joined_by_cat_are_refused(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes() * 2)
    with pytest.raises(TarShardError, match="joined by cat"):
        read_members(str(tar))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty"), (b"\xff\xd8" * 5000, "it is no tar"), (b"z", "cut short")],
)
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(TarShardError, match=rf"byte 0: .*{message}"):
        read_members(str(path))


def test_a_tar_that_is_written_to_meanwhile_is_refused(
    tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread, written = os.pread, threading.Event()

    def writes(descriptor: int, size: int, at: int) -> bytes:
        if not written.is_set():
            written.set()
            os.utime(tar, (1, 1))
        return pread(descriptor, size, at)

    monkeypatch.setattr(os, "pread", writes)
    with pytest.raises(TarShardError, match="changed while its headers were read"):
        read_members(str(tar))


def test_only_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "x.tar", [(f"{i}.jpg", bytes(200_000)) for i in range(20)])
    asked = []
    pread = os.pread

    def counted(descriptor: int, size: int, at: int) -> bytes:
        data = pread(descriptor, size, at)
        asked.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    read_members(str(path))
    assert sum(asked) < 21 * 8192 < path.stat().st_size / 20
