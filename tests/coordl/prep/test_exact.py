"""Every form of every kind of JPEG has libjpeg-turbo's pixels; a resize is near Pillow's."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jpegs import FORMS, by_tool, encoded, forms_of, pillow, portable, region, whole
from PIL import Image

from coordl import _native
from demo.photos import default_place

SIZES = [(64, 48), (33, 17), (131, 77), (17, 40), (5, 3)]
PICTURES = 700  # of the demo's, 15 crops each

# -- options of Pillow's writer

SAMPLINGS = ["4:4:4", "4:2:2", "4:2:0", "grey", "rgb"]
FEATURES = {
    "plain": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restart blocks": {"restart_marker_blocks": 3},
    "restart rows": {"restart_marker_rows": 1},
    "quality 1": {"quality": 1},
    "quality 30": {"quality": 30},
    "quality 100": {"quality": 100},
    "16-bit quantisers": {"qtables": [[min(65535, 200 + 9 * i) for i in range(64)]] * 2},
    "quantisers of 1": {"qtables": [[1] * 64] * 2},
    "restart, progressive": {"restart_marker_blocks": 2, "progressive": True},
    "EXIF": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"},
}

# -- options of libjpeg-turbo's cjpeg

CJPEG = {
    "arithmetic": ["-arithmetic"],
    "arithmetic progressive": ["-arithmetic", "-progressive"],
    "arithmetic restart": ["-arithmetic", "-restart", "2B"],
    "4:4:0": ["-sample", "1x2"],
    "4:1:1": ["-sample", "4x1"],
    "4:1:0": ["-sample", "4x2"],
    "1x4": ["-sample", "1x4"],
    "3x1": ["-sample", "3x1"],
    "chroma finer than luma": ["-sample", "1x1,2x2,2x2"],
    "progressive 4:4:0": ["-sample", "1x2", "-progressive"],
    "grey": ["-grayscale"],
    "grey of 2x2": ["-grayscale", "-sample", "2x2"],
    "rgb": ["-rgb"],
    "restart of one row": ["-restart", "1"],
    "fast DCT": ["-dct", "fast"],
    "baseline tables": ["-baseline", "-quality", "3"],
}
SCANS = {  # sequential scans, which is one way of many
    "a scan for each component": "0;\n1;\n2;\n",
    "luma first": "0;\n1 2;\n",
}


def assert_exact(item: bytes, crops: int, seed: int) -> int:
    """Compares the whole and random crops in every form; the number of crops compared."""
    full = pillow(item)
    height, width = full.shape[:2]
    chance = random.Random(seed)
    compared = 0
    for form, other in forms_of(item):
        assert _native.image_size(other) == (width, height)
        boxes = [(0, 0, width, height)] if crops == 0 or width * height < 10_000 else []
        for _ in range(crops):
            w, h = chance.randint(1, width), chance.randint(1, height)
            boxes.append((chance.randint(0, width - w), chance.randint(0, height - h), w, h))
        for x, y, w, h in boxes:
            ours = region(other, x, y, w, h)
            assert ours is not None, form
            wrong = int((ours != full[y : y + h, x : x + w]).any(axis=2).sum())
            assert wrong == 0, f"{form}: {wrong} pixels of {(x, y, w, h)} differ, {full.shape}"
            compared += 1
    return compared


def picture(photo: Path, sampling: str, size: tuple[int, int]) -> Image.Image:
    image = Image.open(photo).convert("L" if sampling == "grey" else "RGB")
    return image.crop((40, 30, 40 + size[0], 30 + size[1]))


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_kind_of_file_pillow_writes_is_exact_in_every_form(photos, sampling, feature):
    options: dict[str, object] = {"quality": 85, **FEATURES[feature]}
    if sampling == "rgb":
        options["keep_rgb"] = True
    elif sampling != "grey":
        options["subsampling"] = sampling
    for seed, size in enumerate(SIZES):
        item = encoded(picture(photos[seed % len(photos)], sampling, size), **options)
        assert whole(item) is not None
        assert_exact(item, 4, seed)


@pytest.fixture(scope="session")
def cjpeg() -> str:
    path = shutil.which("cjpeg")
    if path is None:
        pytest.skip("cjpeg of libjpeg-turbo is not on PATH (Debian: libjpeg-turbo-progs)")
    return path


def is_not_ours_or_exact(item: bytes, seed: int) -> bool:
    if _native.image_size(item) is None:
        assert all(_native.recode(item, form) is None for form in FORMS[1:])
        return False
    assert_exact(item, 6, seed)
    return True


@pytest.mark.parametrize("kind", CJPEG)
def test_every_kind_of_file_cjpeg_writes_is_exact_in_every_form(photos, cjpeg, kind):
    made = 0
    for seed, size in enumerate(SIZES):
        given = portable(picture(photos[seed % len(photos)], "4:2:0", size))
        item = by_tool(cjpeg, *CJPEG[kind], given=given)
        if item is not None:
            made += is_not_ours_or_exact(item, seed)
    assert made > 0 or kind in ("4:1:0", "3x1", "chroma finer than luma")


@pytest.mark.parametrize("kind", SCANS)
def test_files_of_many_sequential_scans_are_exact_in_every_form(photos, cjpeg, kind, tmp_path):
    (tmp_path / "scans").write_text(SCANS[kind])
    for seed, sampling in enumerate(["2x2", "2x1", "1x1"]):
        given = portable(picture(photos[0], "4:2:0", SIZES[seed]))
        options = ["-scans", str(tmp_path / "scans"), "-sample", sampling]
        item = by_tool(cjpeg, *options, given=given)
        assert item is not None and item.count(b"\xff\xda") > 1
        assert_exact(item, 6, seed)
        assert _native.recode(item, "packed") is not None
        assert _native.recode(item, "indexed") is None


def test_a_file_jpegtran_rewrote_is_exact_in_every_form(photos, encode):
    jpegtran = shutil.which("jpegtran")
    if jpegtran is None:
        pytest.skip("jpegtran of libjpeg-turbo is not on PATH (Debian: libjpeg-turbo-progs)")
    item = encode(photos[0], "4:2:2", (128, 96))
    for change in ("-rotate 90", "-transpose", "-arithmetic", "-grayscale", "-optimize"):
        other = by_tool(jpegtran, *change.split(), given=item)
        assert other is not None
        assert_exact(other, 6, 1)


def test_samples_of_12_bits_are_not_ours(photos, encode, cjpeg):
    given = portable(picture(photos[0], "4:2:0", (64, 48)))
    item = by_tool(cjpeg, "-precision", "12", given=given)  # from libjpeg-turbo 3 on
    if item is None:
        item = encode(photos[0], "4:2:0", (64, 48))
        at = item.index(b"\xff\xc0")
        item = item[: at + 1] + b"\xc1" + item[at + 2 : at + 4] + b"\x0c" + item[at + 5 :]
    assert _native.image_size(item) is None
    assert _native.recode(item, "packed") is None and _native.recode(item, "indexed") is None


def test_crops_of_the_committed_photographs_are_exact_in_every_form(photos):
    crops = sum(assert_exact(photo.read_bytes(), 20, seed) for seed, photo in enumerate(photos))
    assert crops > 200


@pytest.mark.slow
def test_ten_thousand_crops_of_real_photographs_are_exact_in_every_form(photos):
    found = sorted(default_place().rglob("*.jpg")) or photos
    chosen = found[:: max(1, len(found) // PICTURES)]
    crops = 10_000 // len(chosen) + 1
    compared = sum(assert_exact(p.read_bytes(), crops, s) for s, p in enumerate(chosen))
    assert compared >= 10_000 * len(FORMS)


# -- the resize, in a process for each instruction set

RESIZES = """
import hashlib, io, sys
import numpy as np
from PIL import Image
from coordl import _native

try:
    _native.simd()
except RuntimeError:
    sys.exit("no such kernels here")
digest, worst = hashlib.sha256(), 0
for seed, name in enumerate(sys.argv[1:]):
    item = open(name, "rb").read()
    image = Image.open(io.BytesIO(item)).convert("RGB")
    chance = np.random.default_rng(seed)
    for case in range(14):
        w, h = (int(chance.integers(1, edge + 1)) for edge in image.size)
        x = int(chance.integers(0, image.width - w + 1))
        y = int(chance.integers(0, image.height - h + 1))
        if case == 0:
            x, y, w, h = 0, 0, *image.size
        out_w, out_h = int(chance.integers(16, 300)), int(chance.integers(16, 300))
        flip = case % 2 == 1
        shown = image.crop((x, y, x + w, y + h)).resize((out_w, out_h), Image.Resampling.BILINEAR)
        wanted = np.asarray(shown).transpose(2, 0, 1)[:, :, :: -1 if flip else 1].astype(int)
        results = []
        for form in ("original", "indexed", "packed"):
            other = item if form == "original" else _native.recode(item, form)
            for pixel in ("uint8", "float32"):
                out = np.empty((3, out_h, out_w), pixel)
                size = {"out_height": out_h, "out_width": out_w}
                job = _native.Pass(geometry="resize", pixel=pixel, **size)
                assert _native.prepare_box(other, job, x, y, w, h, flip, out)
                if pixel == "float32":
                    assert np.array_equal(np.rint(out * 255).astype(np.uint8), results[-1])
                else:
                    results.append(out)
                digest.update(out.tobytes())
        assert all(np.array_equal(result, results[0]) for result in results)
        worst = max(worst, int(np.abs(results[0].astype(int) - wanted).max()))
print(digest.hexdigest(), worst)
"""


def test_resized_crops_of_every_form_are_within_a_level_of_pillow_on_every_instruction_set(photos):
    results = {}
    for simd in ("scalar", "avx2", "avx512", "neon"):
        done = subprocess.run(
            [sys.executable, "-c", RESIZES, *map(str, photos)],
            env={**os.environ, "COORDL_SIMD": simd},
            capture_output=True,
            text=True,
        )
        if "no such kernels here" in done.stderr:
            continue
        assert done.returncode == 0, done.stderr
        digest, worst = done.stdout.split()
        assert int(worst) <= 1, simd
        results[simd] = digest
    assert "scalar" in results and len(set(results.values())) == 1, results


def test_a_packed_item_keeps_the_files_header_when_asked(photos):
    item = photos[0].read_bytes()
    bare, kept = _native.recode(item, "packed"), _native.recode(item, "packed", keep_header=True)
    header = item[: item.index(b"\xff\xda")]
    assert bare is not None and kept is not None
    assert header in kept and header not in bare
    assert np.array_equal(whole(bare), whole(kept))


def test_only_an_original_is_recoded(photos):
    item = photos[0].read_bytes()
    for form, other in forms_of(item):
        if form != "original":
            assert _native.recode(other, "packed") is None
            assert _native.recode(other, "indexed") is None
    with pytest.raises(ValueError, match="use packed or indexed"):
        _native.recode(item, "original")
    with pytest.raises(Exception, match="cannot identify"):
        Image.open(io.BytesIO(_native.recode(item, "packed") or b""))
