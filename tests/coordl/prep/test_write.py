"""Items back into JPEG files: coefficients, tables and segments are those of the original."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from coordl import MinIOCache, _native

PACKED = [
    "4:2:0", "4:2:2", "4:4:4", "progressive 4:2:0", "progressive 4:4:4", "restart markers", "grey",
    "grey progressive", "low quality",
]  # fmt: skip
INDEXED = ["4:2:0", "4:2:2", "4:4:4", "grey", "low quality"]
SIZES = [None, (300, 299), (97, 260), (33, 17), (16, 16), (9, 8), (8, 1)]


def there_and_back(original: bytes, form: str = "packed") -> bytes:
    item = _native.recode(original, form, keep_header=True)
    assert item is not None and _native.can_unpack(item)
    written = _native.unpack(item)
    assert written is not None
    return written


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def segments(jpeg: bytes) -> list[tuple[int, bytes]]:
    """Application and comment segments up to the first scan, in order."""
    found, at = [], 2
    while jpeg[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", jpeg, at + 2)
        if 0xE0 <= jpeg[at + 1] <= 0xEF or jpeg[at + 1] == 0xFE:
            found.append((jpeg[at + 1], jpeg[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("encoding", PACKED)
def test_a_packed_item_is_unpacked_into_the_same_coefficients(photos, encode, encoding, size):
    original = encode(photos[0], encoding, size)
    written = there_and_back(original)
    # An item without a header is quantisers and blocks, nothing else.
    blocks = _native.recode(original, "packed", keep_header=False)
    assert blocks is not None and _native.recode(written, "packed", keep_header=False) == blocks
    assert np.array_equal(pixels(written), pixels(original))


@pytest.mark.parametrize("encoding", PACKED)
def test_quantisation_tables_are_those_of_the_original(photos, encode, encoding):
    original = encode(photos[1], encoding)

    def tables(jpeg: bytes) -> list[list[int]]:
        image = Image.open(io.BytesIO(jpeg))
        return [image.quantization[layer[3]] for layer in image.layer]

    assert tables(there_and_back(original)) == tables(original)


def test_committed_photographs_come_back(photos):
    for photo in photos:
        original = photo.read_bytes()
        written = there_and_back(original)
        assert np.array_equal(pixels(written), pixels(original))
        assert segments(written) == segments(original)


def with_segments(photo) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    Image.open(photo).save(
        out, "JPEG", exif=exif, icc_profile=b"profile" * 20_000, comment=b"a comment", dpi=(72, 72)
    )
    return out.getvalue()


@pytest.mark.parametrize("form", ["packed", "indexed"])
def test_exif_profile_and_comment_come_back_in_order(photos, form):
    original = with_segments(photos[0])
    written = there_and_back(original, form)
    assert len(segments(original)) >= 5
    assert segments(written) == segments(original)
    before, after = (Image.open(io.BytesIO(data)) for data in (original, written))
    assert dict(before.getexif()) == dict(after.getexif())
    assert before.info["icc_profile"] == after.info["icc_profile"]


def test_component_ids_tell_the_colour_space_where_no_segment_does(photos, encode):
    """Without JFIF and Adobe segments decoders go by the ids: those stay."""
    original = encode(photos[0], "4:2:0", (64, 64))
    (length,) = struct.unpack_from(">H", original, 4)
    bare = bytearray(original[:2] + original[4 + length :])
    frame, scan = bare.index(b"\xff\xc0"), bare.index(b"\xff\xda")
    for component in range(3):
        bare[frame + 10 + 3 * component] = bare[scan + 5 + 2 * component] = 10 + component
    written = there_and_back(bytes(bare))
    assert segments(written) == []
    frame = written.index(b"\xff\xc0")
    assert [written[frame + 10 + 3 * component] for component in range(3)] == [10, 11, 12]
    assert np.array_equal(pixels(written), pixels(bytes(bare)))


@pytest.mark.parametrize("encoding", INDEXED)
@pytest.mark.parametrize("size", [None, (33, 17)], ids=str)
def test_an_indexed_item_gives_the_file_back(photos, encode, encoding, size):
    original = encode(photos[0], encoding, size)
    assert there_and_back(original, "indexed") == original


def test_what_follows_the_end_marker_does_not_come_back(photos, encode):
    original = encode(photos[0], "4:2:0", (64, 64))
    assert there_and_back(original + b"trailing", "indexed") == original


def test_an_item_without_a_header_becomes_a_jfif_file(photos, encode):
    original = encode(photos[0], "4:2:2", (70, 50))
    written = _native.unpack(_native.recode(original, "packed", keep_header=False))
    assert written is not None and segments(written)[0][1].startswith(b"JFIF\0")
    assert np.array_equal(pixels(written), pixels(original))


@pytest.mark.parametrize("item", [b"", b"CdPk", b"CdIx" + bytes(100), b"\xff\xd8\xff\xd9"])
def test_what_is_none_of_ours_is_not_unpacked(item):
    assert _native.unpack(item) is None
    assert not _native.can_unpack(item)


def test_damaged_items_are_refused_or_unpacked_but_never_crash(photos, encode):
    item = _native.recode(encode(photos[0], "4:2:0", (64, 64)), "packed", keep_header=True)
    chance = np.random.default_rng(3)
    for _ in range(2000):
        bad = bytearray(item)
        for at in chance.integers(0, len(bad), 3):
            bad[at] = chance.integers(0, 256)
        _native.unpack(bytes(bad))
        _native.can_unpack(bytes(bad))


def test_a_coefficient_no_encoder_makes_is_told_before(photos, encode):
    """DC of -1200 at a quantiser of 1: decodable, and two such blocks have no baseline code."""
    item = bytearray(_native.recode(encode(photos[0], "4:4:4", (64, 64)), "packed"))
    header, quantisers = 24, 3 * 128
    for component in range(3):
        struct.pack_into("<H", item, header + 128 * component, 1)
    blocks = header + quantisers + 4 * 3 * 8
    (word,) = struct.unpack_from("<H", item, blocks)
    struct.pack_into(
        "<h", item, blocks, -1200 << 4 | word & 15
    )  # native/prep/jpeg/packed_block.hpp
    assert _native.check_item(bytes(item))
    assert not _native.can_unpack(bytes(item))


def test_only_whole_items_from_the_cache_are_taken_as_checked(photos):
    item = _native.recode(photos[0].read_bytes(), "packed")
    with MinIOCache("8MiB", name="t-held", expected_items=4) as cache:
        assert cache.admit((1, 1), item)
        held = cache.get((1, 1))
        assert _native.image_size(held) == _native.image_size(item)
        assert _native.image_size(held[:-1]) is None
        assert _native.image_size(held[1:]) is None
        del held
