"""Damaged, hostile and odd JPEGs: the pixels Pillow gives, or *not ours*; never a crash.

`False` and `None` are always right answers: the user's loader then decides. What a test claims on
top of that, it says in its name.
"""

from __future__ import annotations

import io
import random
import struct
import warnings

import numpy as np
import pytest
from jpegs import FORMS, encoded, forms_of, pillow, region, segment, segments, whole
from PIL import Image, ImageFile

from coordl import _native

DHT, DRI, DNL, SOF, SOS, DQT = 0xC4, 0xDD, 0xDC, 0xC0, 0xDA, 0xDB
KINDS = ["4:2:0", "4:4:4", "restart markers", "grey", "progressive 4:2:0"]


@pytest.fixture(params=KINDS)
def item(request, photos, encode) -> bytes:
    return encode(photos[0], request.param, (72, 56))


@pytest.fixture
def baseline(photos, encode) -> bytes:
    return encode(photos[0], "4:2:0", (72, 56))


def assert_pillows_or_not_ours(item: bytes) -> bool:
    """Whether it is ours."""
    ours = whole(item)
    others = {form: other for form, other in forms_of(item) if form != "original"}
    if ours is None:
        # Whoever recodes reads all of it: no form of what is not ours.
        assert not others
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = pillow(item)
    for name, pixels in {"original": ours, **{f: whole(o) for f, o in others.items()}}.items():
        assert pixels is not None and np.array_equal(pixels, full), name
    return True


def insert(item: bytes, marker: int, content: bytes) -> bytes:
    """Puts bytes before the first segment of that kind."""
    at = next(begin for found, begin, _ in segments(item) if found == marker)
    return item[:at] + content + item[at:]


def replace(item: bytes, marker: int, content: bytes) -> bytes:
    """Puts another segment in place of all of that kind."""
    for found, begin, end in reversed(segments(item)):
        if found == marker:
            item = item[:begin] + item[end:]
    return insert(item, SOS, segment(marker, content))


# -- truncated and flipped


def test_a_file_cut_at_any_marker_is_not_ours(item):
    cuts = {edge for _, begin, end in segments(item) for edge in (begin, begin + 1, begin + 3, end)}
    for at in cuts | set(range(0, len(item), 61)) | {len(item) - 2, len(item) - 1}:
        assert _native.image_size(item[:at]) is None
        assert all(_native.recode(item[:at], form) is None for form in FORMS[1:])


def test_a_file_cut_in_its_data_but_ended_is_not_ours_as_a_whole(item):
    begin = segments(item)[-1][2]
    for share in (0.1, 0.5, 0.9):
        cut = item[: begin + int((len(item) - begin) * share)]
        assert whole(cut.rstrip(b"\xff") + b"\xff\xd9") is None


def test_a_file_without_its_end_marker_is_not_ours(item):
    assert item.endswith(b"\xff\xd9")
    assert _native.image_size(item[:-2]) is None
    assert whole(item[:-2] + b"\xff\xd8") is None


@pytest.mark.parametrize("junk", [b"\0", b"\xff", b"\xff\xd9", b"\xff\xd8\xff", b"junk" * 999])
def test_what_follows_the_end_marker_changes_nothing(item, junk):
    assert assert_pillows_or_not_ours(item + junk)
    assert np.array_equal(whole(item + junk), pillow(item))


def test_any_flipped_bit_gives_pillows_pixels_or_is_not_ours(item):
    header = segments(item)[-1][2]
    chance = random.Random(3)
    bits = set(range(0, 8 * header, 5)) | {chance.randrange(8 * len(item)) for _ in range(500)}
    taken = 0
    for bit in sorted(bits):
        flipped = bytearray(item)
        flipped[bit // 8] ^= 1 << bit % 8
        size = _native.image_size(bytes(flipped))
        if size is not None and size[0] * size[1] < 300_000:
            taken += assert_pillows_or_not_ours(bytes(flipped))
    assert taken > 50


# -- sizes


def with_size(item: bytes, width: int, height: int) -> bytes:
    at = next(begin for marker, begin, _ in segments(item) if marker in (0xC0, 0xC2))
    return item[: at + 5] + struct.pack(">HH", height, width) + item[at + 9 :]


@pytest.mark.parametrize("size", [(0, 56), (72, 0), (0, 0), (65535, 65535), (65535, 2000)], ids=str)
def test_no_pixels_and_decompression_bombs_are_refused_by_their_header(item, size):
    bomb = with_size(item, *size)
    assert _native.image_size(bomb) is None
    assert all(_native.recode(bomb, form) is None for form in FORMS[1:])


@pytest.mark.parametrize("size", [(65535, 56), (65535, 1), (72, 65535), (9000, 9000)], ids=str)
def test_a_large_header_over_a_tiny_body_is_not_ours_as_a_whole(item, size):
    bomb = with_size(item, *size)
    assert all(_native.recode(bomb, form) is None for form in FORMS[1:])
    if _native.image_size(bomb) is not None:
        assert region(bomb, size[0] - 1, size[1] - 1, 1, 1) is None


@pytest.mark.parametrize("shape", [(65500, 9), (9, 65500)], ids=str)
def test_the_longest_edges_are_exact(shape):
    noise = np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], 3), np.uint8)
    item = encoded(Image.fromarray(noise), quality=70)
    full = pillow(item)
    for _, other in forms_of(item):
        assert np.array_equal(whole(other), full)
        x, y = shape[0] - 9, shape[1] - 9
        assert np.array_equal(region(other, x, y, 9, 9), full[y:, x:])


# -- names and formats


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_other_formats_are_not_ours_whatever_their_name_says(photos, kind):
    out = io.BytesIO()
    Image.open(photos[0]).convert("RGB").resize((40, 30)).save(out, kind)
    assert _native.image_size(out.getvalue()) is None
    assert all(_native.recode(out.getvalue(), form) is None for form in FORMS[1:])


@pytest.mark.parametrize("magic", [b"CdPk", b"CdIx"])
def test_a_file_that_begins_as_one_of_our_forms_is_not_ours(baseline, magic):
    for item in (magic, magic + baseline, magic + b"\x01" + bytes(60), magic + b"\xff" * 60):
        assert _native.image_size(item) is None
        assert region(item, 0, 0, 1, 1) is None


def test_damaged_forms_are_refused_or_decoded_but_never_take_the_process_down(item):
    chance = random.Random(4)
    for form, other in forms_of(item):
        if form == "original":
            continue
        for _ in range(1500):
            bad = bytearray(other)
            for _ in range(chance.randint(1, 4)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            size = _native.image_size(bytes(bad))
            if size is not None and size[0] * size[1] < 300_000:
                region(bytes(bad), 0, 0, *size)
        for at in range(0, len(other), 97):
            assert _native.image_size(other[:at]) is None
        assert _native.image_size(other + b"\0") is None


# -- Huffman tables


def table(kind: int, counts: list[int], symbols: list[int]) -> bytes:
    assert len(counts) == 16
    return bytes([kind, *counts, *symbols])


def one_length(kind: int, length: int, symbols: list[int]) -> bytes:
    counts = [0] * 16
    counts[length - 1] = len(symbols)
    return table(kind, counts, symbols)


HOSTILE = {
    "code of all ones": one_length(0x10, 1, [0x00, 0x01]),
    "code of all ones, long": table(0x10, [1] * 15 + [2], [1] * 17),
    "code of all ones, two bits": table(0x10, [1, 2] + [0] * 14, [0x00, 0x01, 0x02]),
    "more codes than bits": one_length(0x10, 1, [0, 1, 2]),
    "255 codes of one bit": one_length(0x10, 1, [1] * 255),
    "more symbols than bytes": table(0x10, [0] * 15 + [255], [1, 2, 3]),
    "over 256 symbols": table(0x10, [0] * 14 + [255, 255], [1] * 510),
    "empty": table(0x10, [0] * 16, []),
    "DC of 16 bits": one_length(0x00, 2, [0, 16, 5]),
    "table 4": one_length(0x14, 2, [0, 1, 2]),
    "class 2": one_length(0x20, 2, [0, 1, 2]),
    "cut off": b"\x10\x01",
}
ODD = {  # valid, and no encoder's
    "one code": one_length(0x10, 1, [0x00]),
    "values of 12 bits, short codes": one_length(
        0x10, 3, [0x00, 0x0C, 0x01, 0x0C, 0x02, 0xF0, 0x11]
    ),
    "values of 15 bits": one_length(0x10, 2, [0x00, 0x0F, 0x01]),
    "12 bits behind 12-bit codes": table(
        0x10, [0, 1, 1, *[0] * 8, 9, *[0] * 4], [0x00, 0x0C, *[0x01, 0x11, 0x21, 2, 3, 4, 5, 6, 7]]
    ),
    "runs beyond the block": one_length(0x10, 2, [0xF0, 0xF1, 0x01]),
    "end of block of other runs": one_length(0x10, 2, [0x10, 0x70, 0x01]),
    "codes of 16 bits": one_length(0x10, 16, [0x00, *range(1, 11), *[0x11] * 200]),
    "DC of 15 bits": one_length(0x00, 2, [0, 15, 5]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_huffman_tables_are_refused_as_by_libjpeg(baseline, name):
    assert whole(insert(baseline, SOS, segment(DHT, HOSTILE[name]))) is None
    assert not assert_pillows_or_not_ours(insert(baseline, SOS, segment(DHT, HOSTILE[name])))


@pytest.mark.parametrize("name", ODD)
def test_odd_huffman_tables_give_pillows_pixels_or_are_not_ours(baseline, name):
    for seed in range(60):  # their codes over random data: some run through, most do not
        odd = insert(baseline, SOS, segment(DHT, ODD[name]))
        chance = random.Random(seed)
        begin = segments(odd)[-1][2]
        data = bytes(b for b in chance.randbytes(6000) if b != 0xFF)
        assert_pillows_or_not_ours(with_size(odd[:begin] + data + b"\xff\xd9", 24, 16))
        assert_pillows_or_not_ours(odd)


def test_a_table_of_an_earlier_file_never_serves_a_later_one(baseline):
    without = baseline
    for marker, begin, end in reversed(segments(baseline)):
        if marker == DHT:
            without = without[:begin] + without[end:]
    assert whole(baseline) is not None
    # libjpeg puts the standard's tables in where a file has none, or fails: so do we.
    assert_pillows_or_not_ours(without)


# -- other segments


@pytest.mark.parametrize("interval", [1, 2, 19, 20, 65535])
def test_a_restart_interval_that_the_data_do_not_have_is_pillows_or_not_ours(baseline, interval):
    # 72 x 56 of 4:2:0 has 20 MCUs: from 20 on the interval never ends.
    restarts = segment(DRI, struct.pack(">H", interval))
    ours = assert_pillows_or_not_ours(insert(baseline, SOS, restarts))
    assert ours == (interval >= 20)


def test_data_beyond_a_restart_interval_are_not_taken_from_the_next(photos, encode):
    # The first row of MCUs loses its last bytes: what is read in their place is the second row's.
    # The region ends with the first row, so nobody looks at the marker behind it.
    image = Image.open(photos[0]).convert("RGB").crop((40, 30, 168, 94))
    item = encoded(image, quality=90, subsampling="4:4:4", restart_marker_rows=1)
    assert region(item, 0, 0, 128, 8) is not None
    at = item.index(b"\xff\xd0")
    for lost in (2, 5, 40):
        assert region(item[: at - lost] + item[at:], 0, 0, 128, 8) is None


def test_heights_that_come_after_the_scan_are_not_ours(baseline):
    dnl = segment(DNL, struct.pack(">H", 56))
    assert _native.image_size(with_size(baseline[:-2] + dnl + b"\xff\xd9", 72, 0)) is None
    assert_pillows_or_not_ours(insert(baseline, SOS, dnl))
    assert_pillows_or_not_ours(baseline[:-2] + dnl + b"\xff\xd9")


def test_two_frame_headers_are_not_ours(baseline):
    _, begin, end = next(s for s in segments(baseline) if s[0] == SOF)
    assert whole(insert(baseline, SOS, baseline[begin:end])) is None
    assert not assert_pillows_or_not_ours(insert(baseline, SOS, baseline[begin:end]))


def test_a_scan_before_its_frame_is_not_ours(baseline):
    _, begin, end = segments(baseline)[-1]
    assert not assert_pillows_or_not_ours(baseline[:2] + baseline[begin:end] + baseline[2:])


@pytest.mark.parametrize(
    "marker", [0xC1, 0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCC, 0xDE]
)
def test_other_kinds_of_frame_are_pillows_or_not_ours(baseline, marker):
    at = next(begin for found, begin, _ in segments(baseline) if found == SOF)
    ours = assert_pillows_or_not_ours(baseline[: at + 1] + bytes([marker]) + baseline[at + 2 :])
    assert ours == (marker == 0xC1) or marker == 0xC9


@pytest.mark.parametrize("value", [0, 1, 255])
def test_extreme_quantisers_give_pillows_pixels_or_are_not_ours(baseline, value):
    tables = b"".join(bytes([which, *[value] * 64]) for which in (0, 1))
    assert_pillows_or_not_ours(replace(baseline, DQT, tables))


@pytest.mark.parametrize("value", [256, 32767, 32768, 65535])
def test_quantisers_of_16_bits_give_pillows_pixels_or_are_not_ours(baseline, value):
    tables = b"".join(bytes([0x10 | t]) + struct.pack(">H", value) * 64 for t in (0, 1))
    assert_pillows_or_not_ours(replace(baseline, DQT, tables))


def test_missing_quantisers_are_not_ours(baseline):
    for marker, begin, end in reversed(segments(baseline)):
        if marker == DQT:
            baseline = baseline[:begin] + baseline[end:]
    assert not assert_pillows_or_not_ours(baseline)


@pytest.mark.parametrize(
    "content", [b"JFIF\0\2\1\0\0\1\0\1\0\0", b"JFIF\0\1\1", b"JFXX\0\x10", b""]
)
def test_odd_application_segments_give_pillows_pixels_or_are_not_ours(baseline, content):
    assert_pillows_or_not_ours(insert(baseline, SOF, segment(0xE0, content)))


@pytest.mark.parametrize("transform", [0, 1, 2, 3])
def test_adobes_word_on_colours_is_taken_as_pillow_takes_it(baseline, transform):
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    without_jfif = baseline[:2] + baseline[segments(baseline)[0][2] :]
    for item in (baseline, without_jfif):
        assert_pillows_or_not_ours(insert(item, SOF, adobe))


@pytest.mark.parametrize("ids", [b"RGB", b"\1\2\3", b"\0\1\2", b"YCC", b"\1\1\2", b"abc"])
def test_component_names_mean_what_they_mean_to_pillow(baseline, ids):
    bare = baseline[:2] + baseline[segments(baseline)[0][2] :]  # without JFIF
    named = bytearray(bare)
    frame = next(begin for marker, begin, _ in segments(bare) if marker == SOF)
    scan = segments(bare)[-1][1]
    for c in range(3):
        named[frame + 10 + 3 * c] = named[scan + 5 + 2 * c] = ids[c]
    assert_pillows_or_not_ours(bytes(named))


def test_pillow_reads_truncated_files_only_when_asked():
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # else "as Pillow" would mean another thing above
