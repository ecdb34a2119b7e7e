"""WebP: ours are Pillow's pixels for convert("RGB"), or none."""

from __future__ import annotations

import random
import struct

import pytest
from PIL import Image
from regions import assert_regions_equal, encoded, region, taken_and_equal

from coordl import _native

pytestmark = pytest.mark.skipif("webp" not in _native.formats(), reason="built without libwebp")

ODD_SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (15, 17), (16, 16), (33, 18), (131, 77)]
ENCODINGS = {
    "quality 0": {"quality": 0},
    "quality 10": {"quality": 10},
    "quality 80": {"quality": 80},
    "quality 100": {"quality": 100},
    "slow": {"quality": 70, "method": 6},
    "fast": {"quality": 70, "method": 0},
    "lossless": {"lossless": True},
    "lossless fast": {"lossless": True, "quality": 0, "method": 0},
}


@pytest.fixture(scope="module")
def picture(photos) -> Image.Image:
    return Image.open(photos[0]).convert("RGB").crop((40, 30, 197, 161))


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(image.convert("L"))
    return image


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("name", ENCODINGS)
def test_random_regions_equal_a_full_decode(picture, name, mode):
    image = with_alpha(picture) if mode == "RGBA" else picture
    for exact in (False, True):
        assert_regions_equal(encoded(image, "WEBP", exact=exact, **ENCODINGS[name]), 25, 1)


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
@pytest.mark.parametrize("name", ["quality 10", "quality 80", "lossless"])
def test_regions_of_odd_sizes_equal_a_full_decode(picture, name, size):
    image = picture.crop((0, 0, *size))
    assert_regions_equal(encoded(image, "WEBP", **ENCODINGS[name]), 25, 2)
    assert_regions_equal(encoded(with_alpha(image), "WEBP", **ENCODINGS[name]), 25, 3)


def test_photographs_equal_pillow_region_by_region(photos):
    for seed, photo in enumerate(photos):
        assert_regions_equal(encoded(Image.open(photo), "WEBP", quality=85), 20, seed)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_other_modes_equal_pillow(picture, mode):
    assert_regions_equal(encoded(picture.convert(mode), "WEBP", lossless=True), 5, 4)


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def riff(*parts: bytes) -> bytes:
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_metadata_changes_nothing(picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a viewer, not by Pillow
    item = encoded(picture, "WEBP", icc_profile=b"profile", exif=exif, xmp=b"<x/>")
    assert item[12:16] == b"VP8X"
    assert_regions_equal(item, 10, 5)


def test_bytes_after_the_end_are_ignored(picture):
    assert_regions_equal(encoded(picture, "WEBP") + b"trailing RIFF junk", 5, 6)


def animation(frames: int, **options: object) -> bytes:
    pictures = [Image.new("RGB", (16, 16), (40 * n, 0, 0)) for n in range(frames)]
    return encoded(pictures[0], "WEBP", save_all=True, append_images=pictures[1:], **options)


def test_an_animation_is_left_to_pillow():
    assert b"ANIM" in animation(3)
    assert _native.image_size(animation(3)) is None


def test_a_canvas_larger_than_the_picture_is_not_ours(picture):
    frame = encoded(picture, "WEBP")[12:]
    canvas = bytes(4) + struct.pack("<I", 299)[:3] + struct.pack("<I", 299)[:3]
    assert _native.image_size(riff(chunk(b"VP8X", canvas), frame)) is None


def test_another_first_chunk_is_not_ours(picture):
    item = encoded(picture, "WEBP")
    assert _native.image_size(riff(chunk(b"JUNK", b"ab"), item[12:])) is None


def test_a_header_that_claims_a_giant_is_left_to_pillow():
    lossless = b"\x2f" + struct.pack("<I", 16382 | 16382 << 14)
    assert _native.image_size(riff(chunk(b"VP8L", lossless + bytes(40)))) is None


@pytest.mark.parametrize("name", ["quality 80", "lossless"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_truncated_file_is_never_ours_wherever_the_crop_lies(picture, name, mode):
    image = with_alpha(picture) if mode == "RGBA" else picture
    item = encoded(image, "WEBP", **ENCODINGS[name])
    for at in [*range(0, len(item), 97), len(item) - 2, len(item) - 1]:
        assert region(item[:at], 0, 0, 1, 1) is None


@pytest.mark.parametrize("name", ["quality 80", "lossless"])
def test_missing_data_below_the_crop_leave_the_item_to_pillow(picture, name):
    frame = encoded(picture, "WEBP", **ENCODINGS[name])[20:]
    kind = b"VP8L" if name == "lossless" else b"VP8 "
    for share in (0.5, 0.9):
        item = riff(chunk(kind, frame[: int(len(frame) * share)]))
        assert region(item, 0, 0, 8, 8) is None


def test_other_loop_filters_and_segments_equal_pillow(picture):
    """The first bytes of the frame's header choose filter, its strength and segments: all values of
    a few of them, on a picture of many blocks. Most still decode, to scrambled pictures."""
    chance, taken = random.Random(8), 0
    item = encoded(picture, "WEBP", quality=60)
    for at in range(30, 36):
        for value in range(0, 256, 5):
            taken += taken_and_equal(item[:at] + bytes([value]) + item[at + 1 :], chance)
    assert taken > 100


def small_items(picture: Image.Image) -> list[bytes]:
    small = picture.resize((37, 29))
    return [
        encoded(image, "WEBP", **options)
        for image in (small, with_alpha(small))
        for options in ENCODINGS.values()
    ] + [encoded(small, "WEBP", exif=b"Exif\0\0abc"), animation(2)]


def test_random_damage_is_left_to_pillow_or_equal(picture):
    chance, items, taken = random.Random(7), small_items(picture), 0
    for _ in range(6000):
        item = bytearray(chance.choice(items))
        for _ in range(chance.randint(1, 4)):
            item[chance.randrange(len(item))] = chance.randrange(256)
        taken += taken_and_equal(bytes(item), chance)
    assert taken > 500
