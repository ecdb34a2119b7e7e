"""The whole native pass equals Pillow's result on the same draw within one level per channel."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from coordl import _native
from coordl.prep.draws import choose_draw, shorter_edge_size
from coordl.prep.plan import Plan
from coordl.prep.vision import prepare_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHARED = {"flip_probability": 0.5}
PLANS = {
    "random resized crop": Plan("random_resized_crop", 224, 224, **SHARED),
    "small random resized crop": Plan("random_resized_crop", 61, 47, **SHARED),
    "enlarging random crop": Plan("random_resized_crop", 300, 410, scale=(0.001, 0.2), **SHARED),
    "whole image": Plan("resize", 96, 130, **SHARED),
    "whole image enlarged": Plan("resize", 700, 900, **SHARED),
    "resize and center crop": Plan("resize_center_crop", 224, 224, 256, **SHARED),
    "resize and odd center crop": Plan("resize_center_crop", 97, 111, 112, **SHARED),
    "center crop": Plan("center_crop", 200, 255, **SHARED),
    "resize and random crop": Plan("resize_random_crop", 224, 224, 256, **SHARED),
    "resize and padded random crop": Plan(
        "resize_random_crop", 97, 111, 112, padding=(9, 20, 11, 30), fill=(9, 80, 200), **SHARED
    ),
    "resize and random crop, padded if needed": Plan(
        "resize_random_crop", 130, 260, 90, pad_if_needed=True, pad_mode="edge", **SHARED
    ),
    "eight pixels wide": Plan("resize", 33, 8, **SHARED),
    "eight by ten pixels": Plan("resize", 8, 10, **SHARED),
}


def native(item: bytes, plan: Plan, seed: int, epoch: int, index: int) -> np.ndarray | None:
    out = np.full(plan.shape, 77, np.uint8 if plan.pixel == "uint8" else np.float32)
    done = _native.prepare(item, plan.native_pass(), seed, epoch, index, out)
    return out if done else None


def with_pixel(plan: Plan, **values) -> Plan:
    return Plan(**{**vars(plan), **values})


def levels_apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("name", PLANS)
def test_bytes_are_within_one_level_of_pillow(photos, name):
    plan = with_pixel(PLANS[name], pixel="uint8")
    for photo in photos:
        item = photo.read_bytes()
        image = Image.open(photo)
        for index in range(12):
            ours = native(item, plan, 1, 2, index)
            assert ours is not None
            assert levels_apart(ours, prepare_image(image, plan, 1, 2, index)) <= 1


@pytest.mark.parametrize("name", PLANS)
def test_normalised_floats_are_within_one_level_of_pillow(photos, name):
    plan = with_pixel(PLANS[name], mean=MEAN, std=STD)
    for photo in photos:
        image = Image.open(photo)
        for index in range(6):
            ours = native(photo.read_bytes(), plan, 3, 0, index)
            reference = prepare_image(image, plan, 3, 0, index)
            step = 1 / (255 * np.array(STD, np.float32)[:, None, None])
            assert (np.abs(ours - reference) <= step * 1.001).all()


def test_floats_are_the_bytes_scaled(photos):
    item = photos[0].read_bytes()
    base = PLANS["random resized crop"]
    levels = native(item, with_pixel(base, pixel="uint8"), 0, 0, 9)
    values = native(item, with_pixel(base, mean=MEAN, std=STD), 0, 0, 9)
    expected = (torch.from_numpy(levels).float().div(255).numpy().T - MEAN) / STD
    assert np.allclose(values, expected.T, atol=1e-6)


def test_most_pixels_equal_pillow_and_the_error_has_no_bias(photos):
    plan = with_pixel(PLANS["random resized crop"], pixel="uint8")
    apart = []
    for photo in photos:
        image = Image.open(photo)
        for index in range(20):
            ours = native(photo.read_bytes(), plan, 1, 2, index).astype(int)
            apart.append(ours - prepare_image(image, plan, 1, 2, index))
    apart = np.stack(apart)
    assert (apart != 0).mean() < 0.25
    assert abs(apart.mean()) < 0.01


@pytest.mark.parametrize("size", [(1200, 900), (2400, 1700), (4800, 300)])
def test_strong_reductions_stay_within_one_level(photos, size):
    image = Image.open(photos[0]).resize(size, Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    image = Image.open(io.BytesIO(out.getvalue()))
    for height, width in [(224, 224), (20, 30), (3, 9)]:
        plan = Plan("resize", height, width, pixel="uint8")
        ours = native(out.getvalue(), plan, 0, 0, 0)
        too_strong = (
            size[0] / width + size[1] / height
        ) * 2 > 256  # 8 fraction bits: Pillow's then
        assert (ours is None) == too_strong
        assert too_strong or levels_apart(ours, prepare_image(image, plan, 0, 0, 0)) <= 1


@pytest.mark.parametrize("encoding", ["grey", "progressive 4:2:0", "rgb", "4:2:2"])
def test_every_encoding_goes_through_the_pass(photos, encode, encoding):
    item = encode(photos[2], encoding)
    plan = with_pixel(PLANS["random resized crop"], pixel="uint8")
    for index in range(10):
        reference = prepare_image(Image.open(io.BytesIO(item)), plan, 5, 5, index)
        assert levels_apart(native(item, plan, 5, 5, index), reference) <= 1


def test_random_boxes_and_sizes_stay_within_one_level(photos):
    chance = random.Random(8)
    for _ in range(150):
        photo = chance.choice(photos)
        plan = Plan(
            "random_resized_crop",
            chance.randint(1, 400),
            chance.randint(1, 400),
            scale=(0.0005, 1.0),
            ratio=(0.2, 5.0),
            flip_probability=0.5,
            pixel="uint8",
        )
        index = chance.getrandbits(64)
        ours = native(photo.read_bytes(), plan, 1, 1, index)
        assert levels_apart(ours, prepare_image(Image.open(photo), plan, 1, 1, index)) <= 1


def test_a_flipped_sample_is_the_mirror_of_the_unflipped(photos):
    for name in ("whole image", "resize and odd center crop", "eight pixels wide"):
        straight = with_pixel(PLANS[name], flip_probability=0.0)
        mirrored = with_pixel(PLANS[name], flip_probability=1.0)
        a = native(photos[1].read_bytes(), straight, 0, 0, 0)
        b = native(photos[1].read_bytes(), mirrored, 0, 0, 0)
        assert np.array_equal(a, b[:, :, ::-1])


def test_exif_orientation_is_ignored_as_pillow_ignores_it(photos):
    image = Image.open(photos[1])
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    assert _native.image_size(out.getvalue()) == image.size


def test_an_image_smaller_than_the_center_crop_is_left_to_the_users_loader(photos, encode):
    item = encode(photos[0], "4:2:0", (100, 260))
    plan = PLANS["center crop"]
    assert native(item, plan, 0, 0, 0) is None
    padded = prepare_image(Image.open(io.BytesIO(item)), plan, 0, 0, 0)
    assert padded.shape == (3, 200, 255) and padded[:, :, 0].max() == 0


def test_a_resized_image_smaller_than_the_random_crop_is_left_to_the_users_loader(photos):
    plan = Plan("resize_random_crop", 224, 224, 200)
    assert native(photos[0].read_bytes(), plan, 0, 0, 0) is None
    with pytest.raises(ValueError, match="larger than the image"):
        prepare_image(Image.open(photos[0]), plan, 0, 0, 0)


def test_a_crop_after_a_resize_is_a_window_on_the_resized_image(photos):
    """The pass that resizes the whole has the same pixels there."""
    image = Image.open(photos[1])
    width, height = shorter_edge_size(150, *image.size)
    crop = Plan("resize_random_crop", 64, 80, 150, pixel="uint8")
    whole = native(photos[1].read_bytes(), Plan("resize", height, width, pixel="uint8"), 0, 0, 0)
    for index in range(20):
        x, y, *_ = choose_draw(crop, *image.size, 0, 0, index)
        ours = native(photos[1].read_bytes(), crop, 0, 0, index)
        assert np.array_equal(ours, whole[:, y : y + 64, x : x + 80])


def test_items_that_are_not_ours_are_reported_not_raised(photos):
    plan = PLANS["random resized crop"]
    item = photos[0].read_bytes()
    gif = io.BytesIO()
    Image.open(photos[0]).save(gif, "GIF")
    for other in (b"", b"no picture", item[: len(item) // 2], item[:-2], gif.getvalue()):
        assert native(other, plan, 0, 0, 0) is None


def test_what_an_item_was_prepared_before_leaves_no_trace(photos, encode):
    plan = with_pixel(PLANS["random resized crop"], mean=MEAN, std=STD)
    item = photos[0].read_bytes()
    expected = native(item, plan, 1, 2, 3)
    for other in (encode(photos[1], "progressive 4:4:4"), b"junk", encode(photos[2], "grey")):
        native(other, PLANS["whole image enlarged"], 0, 0, 0)
        assert np.array_equal(native(item, plan, 1, 2, 3), expected)


def test_all_threads_get_the_same_bits(photos):
    plan = with_pixel(PLANS["random resized crop"], mean=MEAN, std=STD)
    items = [photo.read_bytes() for photo in photos]
    keys = [(items[i % 4], i) for i in range(40)]
    expected = [native(item, plan, 1, 1, i) for item, i in keys]
    wrong: list[int] = []

    def work() -> None:
        for (item, i), right in zip(keys, expected, strict=True):
            if not np.array_equal(native(item, plan, 1, 1, i), right):
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


DIGEST = """
import hashlib, sys
import numpy as np
from coordl import _native
from coordl.prep.plan import Plan
digest = hashlib.sha256(b"")
for path in sys.argv[2:]:
    item = open(path, "rb").read()
    for height, width in [(224, 224), (50, 7), (17, 9), (400, 401), (64, 9)]:
        for pixel in ("uint8", "float32"):
            plan = Plan("random_resized_crop", height, width, flip_probability=0.5, pixel=pixel,
                        mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
            for index in range(8):
                out = np.zeros(plan.shape, pixel)
                assert _native.prepare(item, plan.native_pass(), 1, 2, index, out)
                digest.update(out.tobytes())
print(_native.simd(), digest.hexdigest())
"""


def test_vector_and_plain_kernels_give_the_same_bits(photos):
    def run(simd: str) -> list[str]:
        environment = {**os.environ, "COORDL_SIMD": simd}
        command = [sys.executable, "-c", DIGEST, "-", *map(str, photos)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    plain, best = run("scalar"), run("")
    assert plain[0] == "scalar"
    if best[0] == "scalar":
        pytest.skip("this CPU has no vector kernels of ours")
    assert plain[1] == best[1]


def test_any_bytes_like_item_and_any_writable_array_will_do(photos):
    plan = PLANS["random resized crop"]
    item = photos[0].read_bytes()
    expected = native(item, plan, 0, 0, 0)
    for form in (bytearray(item), memoryview(item), np.frombuffer(item, np.uint8)):
        assert np.array_equal(native(form, plan, 0, 0, 0), expected)
    batch = torch.zeros(2, *plan.shape)
    assert _native.prepare(item, plan.native_pass(), 0, 0, 0, batch[1])
    assert np.array_equal(batch[1].numpy(), expected) and not batch[0].any()


def test_what_another_thread_writes_meanwhile_is_not_half_seen(photos, encode):
    """Two pictures of one length take turns in a bytearray: every result is one of the two."""
    plan = Plan("resize", 64, 64, pixel="uint8")
    pair = [encode(photos[0], "4:2:0"), encode(photos[1], "4:4:4")]
    longest = max(map(len, pair)) + 8
    for which, item in enumerate(pair):  # COM segments right after the SOI fill up
        missing = longest - len(item)
        while missing:
            size = missing if missing <= 60000 else 30000
            item = (
                item[:2] + b"\xff\xfe" + (size - 2).to_bytes(2, "big") + bytes(size - 4) + item[2:]
            )
            missing -= size
        pair[which] = item
    expected = [native(item, plan, 0, 0, 0) for item in pair]
    assert len(pair[0]) == len(pair[1]) and not np.array_equal(*expected)
    shared, stop = bytearray(pair[0]), threading.Event()

    def take_turns() -> None:
        turn = 0
        while not stop.is_set():
            turn ^= 1
            shared[:] = pair[turn]

    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        results = [native(shared, plan, 0, 0, 0) for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert all(any(np.array_equal(result, one) for one in expected) for result in results)


def test_an_array_of_the_wrong_shape_or_type_is_an_error(photos):
    plan = PLANS["random resized crop"]
    item = photos[0].read_bytes()
    for out in (np.zeros((3, 224, 223), np.float32), np.zeros((3, 224, 224), np.uint8)):
        with pytest.raises(ValueError, match=r"\(3, 224, 224\) of float32"):
            _native.prepare(item, plan.native_pass(), 0, 0, 0, out)
    with pytest.raises(TypeError):
        _native.prepare(
            item, plan.native_pass(), 0, 0, 0, np.zeros(plan.shape, np.float32)[:, ::-1]
        )
    with pytest.raises(TypeError):
        _native.prepare("text", plan.native_pass(), 0, 0, 0, np.zeros(plan.shape, np.float32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"geometry": "stretch"}, "geometry 'stretch' is unknown"),
        ({"out_height": 0}, "an edge of 0 px"),
        ({"scale": (0.5, 0.1)}, "scale must be"),
        ({"ratio": (0.0, 1.0)}, "ratio must be"),
        ({"flip_probability": 1.5}, "flip_probability must be"),
        (
            {"pixel": "float64"},
            "pixel 'float64' is unknown: use float32, uint8, float16 or bfloat16",
        ),
        ({"filter": "lanczos"}, "filter 'lanczos' is unknown"),
        ({"padding": (0, 0, -1, 0)}, "a padding of -1 px"),
        ({"layout": "nhwc"}, "layout 'nhwc' is unknown"),
        ({"erase_scale": (0.5, 0.1)}, "erase_scale must be"),
        ({"colours": [("jitter", 1.0, ((-1.0, 1.0), None, None))]}, "brightness must be"),
        ({"colours": [("hue", 1.0, (None,) * 3)]}, "colour step 'hue' is unknown"),
        ({"colours": [("grey", 1.0, (None,) * 3)] * 5}, "5 colour steps are more than the 4"),
    ],
)
def test_a_bad_pass_is_refused_by_name(values, message):
    good = {"geometry": "random_resized_crop", "out_height": 8, "out_width": 8}
    with pytest.raises(ValueError, match=message):
        _native.Pass(**{**good, **values})


def test_the_draw_of_the_reference_is_the_draw_of_the_pass(photos):
    plan = PLANS["random resized crop"]
    width, height = Image.open(photos[0]).size
    ours = _native.choose_draw(plan.native_pass(), width, height, 7, 8, 9)
    assert tuple(choose_draw(plan, width, height, 7, 8, 9)) == tuple(ours)
