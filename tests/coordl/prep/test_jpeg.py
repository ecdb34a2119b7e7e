"""Region decoding gives the pixels of a full decode, or leaves the item alone."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image

from coordl import _native

ENCODINGS = [
    "4:2:0",
    "4:2:2",
    "4:4:4",
    "progressive 4:2:0",
    "progressive 4:4:4",
    "restart markers",
    "rgb",
    "grey",
    "grey progressive",
    "low quality",
]
ODD_SIZES = [(300, 299), (257, 241), (97, 260), (33, 17), (16, 16), (5, 3), (1, 1)]


def region(item: bytes, x: int, y: int, width: int, height: int) -> np.ndarray | None:
    out = np.full((height, width, 3), 7, np.uint8)
    return out if _native.decode_region(item, x, y, out) else None


def pillow(item: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(item)).convert("RGB"))


def assert_regions_equal(item: bytes, count: int, seed: int) -> None:
    full = pillow(item)
    height, width = full.shape[:2]
    assert _native.image_size(item) == (width, height)
    chance = random.Random(seed)
    for _ in range(count):
        w, h = chance.randint(1, width), chance.randint(1, height)
        x, y = chance.randint(0, width - w), chance.randint(0, height - h)
        ours = region(item, x, y, w, h)
        assert ours is not None
        wrong = int((ours != full[y : y + h, x : x + w]).any(axis=2).sum())
        assert wrong == 0, f"{wrong} of {w * h} pixels differ in {(x, y, w, h)} of {full.shape}"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_random_regions_equal_a_full_decode(photos, encode, encoding):
    for seed, photo in enumerate(photos):
        assert_regions_equal(encode(photo, encoding), 25, seed)


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_regions_of_odd_sizes_equal_a_full_decode(photos, encode, encoding, size):
    assert_regions_equal(encode(photos[0], encoding, size), 12, sum(size))


def test_committed_photographs_decode_region_by_region(photos):
    for seed, photo in enumerate(photos):
        assert_regions_equal(photo.read_bytes(), 40, 100 + seed)


def test_a_thin_region_at_each_border_equals_a_full_decode(photos, encode):
    item = encode(photos[0], "4:2:0", (131, 77))
    full = pillow(item)
    for x, y, w, h in [(0, 0, 1, 77), (130, 0, 1, 77), (0, 0, 131, 1), (0, 76, 131, 1)]:
        assert np.array_equal(region(item, x, y, w, h), full[y : y + h, x : x + w])


def test_a_progressive_file_without_its_last_scans_is_left_to_the_users_loader(photos, encode):
    item = encode(photos[0], "progressive 4:2:0")
    scans = [at for at in range(len(item) - 1) if item[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 4
    for keep in range(1, len(scans)):
        assert region(item[: scans[keep]] + b"\xff\xd9", 0, 0, 8, 8) is None


@pytest.mark.parametrize(
    ("encoding", "factors"), [("4:2:2", 0x12), ("4:2:0", 0x41), ("4:2:0", 0x14)], ids=str
)
def test_rare_chroma_samplings_equal_a_full_decode(photos, encode, encoding, factors):
    # The blocks of one unit of 4:2:2 read as one unit of 4:4:0, and so on: a valid, scrambled file.
    item = bytearray(encode(photos[0], encoding, (128, 128)))
    item[item.index(b"\xff\xc0") + 11] = factors
    assert_regions_equal(bytes(item), 40, factors)


def test_bytes_after_the_end_marker_are_ignored(photos):
    item = photos[0].read_bytes()
    assert_regions_equal(item + b"trailing \xff bytes", 3, 0)


def other_format(photo, kind: str) -> bytes:
    image = Image.open(photo)
    out = io.BytesIO()
    if kind == "CMYK":
        image.convert("CMYK").save(out, "JPEG")
    else:
        image.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "CMYK"])
def test_other_formats_are_left_to_the_users_loader(photos, kind):
    item = other_format(photos[0], kind)
    assert _native.image_size(item) is None
    assert region(item, 0, 0, 8, 8) is None


@pytest.mark.parametrize("item", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x00" * 4096])
def test_garbage_is_left_to_the_users_loader(item):
    assert _native.image_size(item) is None


@pytest.mark.parametrize("encoding", ["4:2:0", "progressive 4:2:0"])
def test_a_truncated_file_is_never_ours_wherever_the_crop_lies(photos, encode, encoding):
    item = encode(photos[0], encoding)
    for at in [*range(0, len(item), 997), len(item) - 2, len(item) - 1]:
        assert _native.image_size(item[:at]) is None
        assert region(item[:at], 0, 0, 8, 8) is None


def test_a_truncated_file_with_a_whole_thumbnail_inside_is_not_ours(photos, encode):
    item, thumbnail = encode(photos[0], "4:2:0"), encode(photos[0], "4:2:0", (64, 64))
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = item[:2] + exif + item[2:]
    assert _native.image_size(whole) is not None
    assert _native.image_size(whole[: len(whole) // 2]) is None


def damaged(item: bytes, share: float) -> bytes:
    at = int(len(item) * share)
    return item[:at] + b"\xfe\xdc" * 40 + item[at + 80 :]


def test_damage_that_the_decoder_warns_of_leaves_the_item_to_the_users_loader(photos, encode):
    item = encode(photos[0], "restart markers")
    first_restart = item.index(b"\xff\xd0")
    swapped = item[: first_restart + 1] + b"\xd5" + item[first_restart + 2 :]
    width, height = _native.image_size(item)
    assert region(item, 0, 0, width, height) is not None
    assert region(swapped, 0, 0, width, height) is None


def test_damage_below_the_crop_leaves_the_crops_pixels_right(photos, encode):
    item = encode(photos[0], "4:2:0")
    full = pillow(item)
    ours = region(damaged(item, 0.9), 10, 5, 100, 60)
    assert ours is not None and np.array_equal(ours, full[5:65, 10:110])


def resized_header(item: bytes, width: int, height: int) -> bytes:
    at = next(item.index(m) for m in (b"\xff\xc0", b"\xff\xc2") if m in item)
    return item[: at + 5] + struct.pack(">HH", height, width) + item[at + 9 :]


@pytest.mark.parametrize("encoding", ["4:2:0", "progressive 4:4:4"])
@pytest.mark.parametrize("size", [(65500, 65500), (0, 100), (100, 0), (30000, 3000)])
def test_a_header_that_claims_a_giant_is_refused_before_memory_is_taken(
    photos, encode, encoding, size
):
    assert _native.image_size(resized_header(encode(photos[0], encoding), *size)) is None


def test_a_progressive_file_of_over_256_mib_of_coefficients_is_left_to_the_users_loader():
    image = Image.new("RGB", (6800, 6800), (90, 120, 30))
    for progressive in (False, True):
        out = io.BytesIO()
        image.save(out, "JPEG", subsampling="4:4:4", progressive=progressive)
        assert (region(out.getvalue(), 3000, 8, 8, 8) is None) == progressive


def test_a_header_that_claims_more_rows_than_there_are_is_not_ours(photos, encode):
    item = encode(photos[0], "4:2:0")
    taller = resized_header(item, 512, 4096)
    assert region(taller, 0, 4000, 16, 16) is None


def test_random_damage_never_takes_the_process_down(photos, encode):
    chance = random.Random(5)
    items = [encode(photos[1], name, (120, 90)) for name in ENCODINGS]
    taken = 0
    for _ in range(3000):
        item = bytearray(chance.choice(items))
        for _ in range(chance.randint(1, 6)):
            item[chance.randrange(len(item))] = chance.randrange(256)
        size = _native.image_size(bytes(item))
        if size is not None and size[0] * size[1] < 1_000_000:
            taken += region(bytes(item), size[0] // 3, size[1] // 3, 1, 1) is not None
    assert taken > 0


def test_a_region_outside_the_image_is_an_error(photos, encode):
    item = encode(photos[0], "4:2:0", (60, 40))
    with pytest.raises(ValueError, match="outside the image of 60 x 40"):
        _native.decode_region(item, 50, 0, np.empty((8, 16, 3), np.uint8))
