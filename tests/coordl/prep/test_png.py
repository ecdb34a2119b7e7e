"""PNG: ours are Pillow's pixels for convert("RGB"), or none."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from png_writer import KINDS, chunk, chunks, joined, with_chunk, write_png
from regions import assert_regions_equal, encoded, pillow, region, taken_and_equal

from coordl import _native

pytestmark = pytest.mark.skipif("png" not in _native.formats(), reason="built without libdeflate")

ODD_SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (5, 4), (7, 7), (8, 8), (33, 17), (64, 50)]


@pytest.fixture(scope="module")
def picture(photos) -> Image.Image:
    return Image.open(photos[0]).convert("RGB").crop((40, 30, 197, 161))


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_colour_type_and_depth_equals_pillow(kind, interlaced):
    chance = random.Random(1)
    for size in ODD_SIZES:
        item = write_png(size, *kind, chance=chance, interlaced=interlaced)
        assert_regions_equal(item, 12, sum(size))


@pytest.mark.parametrize("filter", range(5))
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_filter_equals_pillow_also_in_the_first_row(kind, filter):
    item = write_png((61, 40), *kind, chance=random.Random(2), filters=(filter,))
    assert_regions_equal(item, 12, filter)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"compress_level": 0}], ids=str)
def test_what_pillow_writes_equals_what_it_reads(picture, mode, options):
    image = picture.convert(mode)
    if image.mode in ("LA", "RGBA"):
        image.putalpha(picture.convert("L"))
    assert_regions_equal(encoded(image, "PNG", **options), 15, 3)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_few_bits_equal_pillow(picture, bits):
    assert_regions_equal(encoded(picture.quantize(1 << bits), "PNG", bits=bits), 15, bits)


def test_photographs_equal_pillow_region_by_region(photos):
    for seed, photo in enumerate(photos):
        assert_regions_equal(encoded(Image.open(photo), "PNG"), 20, seed)


def test_metadata_changes_nothing(picture):
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "plain")
    text.add_text("Zipped", "long " * 400, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x/>", "en", "Schlüssel", zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a viewer, not by Pillow
    item = encoded(picture, "PNG", pnginfo=text, icc_profile=profile, exif=exif, dpi=(72, 72))
    for name, body in [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", *range(8))),
        (b"sRGB", b"\0"),
        (b"bKGD", b"\0\1\0\2\0\3"),
        (b"tIME", bytes(7)),
        (b"prVt", b"of some program"),
    ]:
        item = with_chunk(item, name, body)
    item = with_chunk(item, b"tEXt", b"After\0the pixels", before=b"IEND")
    assert np.array_equal(pillow(item), np.asarray(picture))
    assert_regions_equal(item, 5, 4)


def test_empty_data_chunks_and_bytes_after_the_end_are_ignored(picture):
    item = with_chunk(encoded(picture, "PNG"), b"IDAT", b"", before=b"IDAT")
    assert_regions_equal(item + b"trailing \x89PNG junk", 5, 5)


def palette_with_transparency() -> bytes:
    item = write_png((20, 20), 3, 8, chance=random.Random(6))
    return with_chunk(item, b"tRNS", bytes(range(200)))


def animation() -> bytes:
    frames = [Image.new("RGB", (16, 16), (40 * n, 0, 0)) for n in range(3)]
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])


def plain(colour: int = 2, depth: int = 8) -> bytes:
    return write_png((20, 20), colour, depth, chance=random.Random(7))


LEFT_TO_PILLOW = {
    "16-bit grey": lambda: plain(0, 16),
    "palette with alpha": palette_with_transparency,
    "a transparent colour": lambda: with_chunk(plain(), b"tRNS", bytes(6)),
    "a transparent grey": lambda: with_chunk(plain(0), b"tRNS", bytes(2)),
    "animation": animation,
    "indices beyond the palette": lambda: write_png(
        (20, 20), 3, 8, chance=random.Random(8), entries=5
    ),
    "text that steers Pillow": lambda: with_chunk(plain(), b"tEXt", b"transparency\0abc"),
    "unknown critical chunk": lambda: with_chunk(plain(), b"ABCD", b""),
    "odd profile": lambda: with_chunk(plain(), b"iCCP", b"name\0\7" + zlib.compress(b"x")),
    "huge text": lambda: with_chunk(
        plain(), b"zTXt", b"bomb\0\0" + zlib.compress(bytes(2_000_000))
    ),
    "short gamma": lambda: with_chunk(plain(), b"gAMA", b"\0"),
    "data in two places": lambda: with_chunk(
        with_chunk(plain(), b"tEXt", b"a\0b", before=b"IEND"), b"IDAT", b"", before=b"IEND"
    ),
    "no palette": lambda: joined(part for part in chunks(plain(3)) if part[0] != b"PLTE"),
    "no data": lambda: joined(part for part in chunks(plain()) if part[0] != b"IDAT"),
    "two headers": lambda: joined([chunks(plain())[0], *chunks(plain())]),
    "CgBI": lambda: joined([(b"CgBI", bytes(4)), *chunks(plain())]),
}


@pytest.mark.parametrize("what", LEFT_TO_PILLOW)
def test_what_pillow_refuses_or_treats_specially_is_left_to_it(what):
    item = LEFT_TO_PILLOW[what]()
    assert region(item, 0, 0, 16, 16) is None


def header_of(width: int, height: int, colour: int = 2, depth: int = 8) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


@pytest.mark.parametrize("size", [(65500, 65500), (1 << 31, 1), (0, 5), (5, 0), (9000, 9000)])
def test_a_header_that_claims_a_giant_is_refused_before_memory_is_taken(size):
    parts = chunks(plain())
    assert _native.image_size(joined([(b"IHDR", header_of(*size)), *parts[1:]])) is None


@pytest.mark.parametrize("change", [-1, 1])
def test_a_stream_that_is_not_the_images_size_is_not_ours(change):
    parts = chunks(plain())
    item = joined([(b"IHDR", header_of(20, 20 + change)), *parts[1:]])
    assert _native.image_size(item) == (20, 20 + change)
    assert region(item, 0, 0, 4, 4) is None


def test_an_unknown_filter_is_not_ours_wherever_the_crop_lies():
    item = write_png((20, 20), 2, 8, chance=random.Random(9), filters=(5,))
    assert region(item, 0, 0, 20, 1) is None


def test_a_truncated_file_is_never_ours_wherever_the_crop_lies(picture):
    item = encoded(picture, "PNG")
    for at in [*range(0, len(item), 97), *range(len(item) - 20, len(item))]:
        assert _native.image_size(item[:at]) is None
        assert region(item[:at], 0, 0, 1, 1) is None


def test_every_flipped_bit_before_the_end_is_noticed(picture):
    item = encoded(picture.resize((24, 24)), "PNG")
    chance = random.Random(10)
    for at in range(len(item)):
        damaged = bytearray(item)
        damaged[at] ^= 1 << chance.randrange(8)
        assert region(bytes(damaged), 0, 0, 24, 24) is None


def small_items() -> list[bytes]:
    chance = random.Random(11)
    return [
        write_png((19, 23), *kind, chance=chance, interlaced=interlaced, part_bytes=300)
        for kind in KINDS
        for interlaced in (False, True)
    ]


def test_random_damage_with_right_checksums_is_left_to_pillow_or_equal():
    chance, items, taken = random.Random(12), small_items(), 0
    for _ in range(4000):
        parts = chunks(chance.choice(items))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(parts))
            name, body = parts[at]
            if body and chance.random() < 0.8:
                changed = bytearray(body)
                changed[chance.randrange(len(changed))] = chance.randrange(256)
                parts[at] = (name, bytes(changed))
            else:
                parts.insert(chance.randrange(len(parts)), parts[at])
        taken += taken_and_equal(joined(parts), chance)
    assert taken > 0


def test_pixels_damaged_under_a_right_stream_equal_pillow():
    chance, taken = random.Random(13), 0
    for _ in range(300):
        parts = chunks(chance.choice(small_items()))
        raw = bytearray(zlib.decompress(b"".join(body for name, body in parts if name == b"IDAT")))
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        parts = [part for part in parts if part[0] not in (b"IDAT", b"IEND")]
        item = joined([*parts, (b"IDAT", zlib.compress(bytes(raw))), (b"IEND", b"")])
        taken += taken_and_equal(item, chance)
    assert taken > 50


def test_random_damage_never_takes_the_process_down():
    chance, items = random.Random(14), small_items()
    for _ in range(3000):
        item = bytearray(chance.choice(items))
        for _ in range(chance.randint(1, 6)):
            item[chance.randrange(len(item))] = chance.randrange(256)
        taken_and_equal(bytes(item[: chance.randint(1, len(item))]), chance)


def test_the_signature_decides_not_what_follows(picture):
    item = encoded(picture, "PNG")
    assert _native.form(item) == "original"
    assert _native.image_size(item) == picture.size
    assert _native.image_size(item[:7] + b"\r" + item[8:]) is None


def test_a_chunk_after_the_end_is_not_read(picture):
    item = encoded(picture, "PNG")
    assert Image.open(io.BytesIO(item)).format == "PNG"
    assert_regions_equal(item + chunk(b"acTL", bytes(8)), 2, 15)
