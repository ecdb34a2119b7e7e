"""Colours, exact resizes, padding, types and layouts of the pass are Pillow's and torch's."""

from __future__ import annotations

import dataclasses
import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from PIL import __version__ as pillow_version

from coordl import _native
from coordl.prep.draws import choose_draw
from coordl.prep.plan import Plan
from coordl.prep.recipe import Colour, Erase
from coordl.prep.vision import coloured, prepare_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = Colour("jitter", 1.0, ((0.5, 1.5), (0.5, 1.5), (0.0, 2.0)))
STORED = {"float32": "f4", "uint8": "u1", "float16": "f2", "bfloat16": "u2"}
BASE = Plan("random_resized_crop", 93, 61, flip_probability=0.5, pixel="uint8")
ops_of = pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "grey"])


def native(item: bytes, plan: Plan, *key: int) -> np.ndarray | None:
    out = np.full(plan.stored_shape, 77, STORED[plan.pixel])
    return out if _native.prepare(item, plan.native_pass(), *key, out) else None


def changed(plan: Plan, **values) -> Plan:
    return dataclasses.replace(plan, **values)


def opened(photo) -> Image.Image:
    return Image.open(photo).convert("RGB")


def planes(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


# -- colours -----------------------------------------------------------------------------------


@ops_of
@pytest.mark.parametrize("factor", [0.0, 0.3, 0.999, 1.0, 1.001, 1.7, 3.0])
def test_a_colour_operation_equals_pillow_in_every_level(photos, name, factor):
    for photo in photos:
        levels = planes(opened(photo))
        _native.apply_colours(levels, [(name, factor)])
        assert np.array_equal(levels, planes(coloured(opened(photo), ((name, factor),))))


def test_any_sequence_of_colour_operations_equals_pillow(photos):
    chance = random.Random(3)
    names = ["brightness", "contrast", "saturation", "grey"]
    for _ in range(60):
        image = opened(chance.choice(photos)).crop((0, 0, chance.randint(1, 90), 57))
        ops = tuple((chance.choice(names), chance.uniform(0, 2)) for _ in range(4))
        levels = planes(image)
        _native.apply_colours(levels, list(ops))
        assert np.array_equal(levels, planes(coloured(image, ops)))


def test_every_level_of_every_channel_is_blended_as_pillow_does():
    ramp = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1).astype(np.uint8)
    pixels = np.concatenate([ramp, ramp[:, ::-1, :1]], axis=2)
    for name in ("brightness", "contrast", "saturation"):
        for factor in np.linspace(0, 2.5, 26):
            levels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
            _native.apply_colours(levels, [(name, float(factor))])
            reference = coloured(Image.fromarray(pixels), ((name, float(factor)),))
            assert np.array_equal(levels, planes(reference)), (name, factor)


def test_torchvisions_jitter_of_tensors_is_within_two_levels_of_ours(torchvision, photos):
    functional = torchvision.transforms.v2.functional
    levels = planes(opened(photos[0]))
    for name in ("brightness", "contrast", "saturation"):
        for factor in (0.4, 0.9, 1.3, 1.9):
            theirs = getattr(functional, f"adjust_{name}")(torch.from_numpy(levels), factor)
            ours = levels.copy()
            _native.apply_colours(ours, [(name, factor)])
            assert np.abs(ours.astype(int) - theirs.numpy()).max() <= 2


# -- resizes -----------------------------------------------------------------------------------


@pytest.mark.skipif(int(pillow_version.split(".")[0]) < 13, reason="another order of passes")
def test_bicubic_equals_pillow_in_every_level(photos):
    chance = random.Random(5)
    for _ in range(120):
        image = opened(chance.choice(photos))
        image = image.crop((0, 0, chance.randint(1, 500), chance.randint(1, 400)))
        size = chance.choice([(chance.randint(1, 300), chance.randint(1, 300)), image.size])
        out = np.zeros((3, size[1], size[0]), np.uint8)
        _native.resize_exact(np.array(image), "bicubic", out)
        assert np.array_equal(out, planes(image.resize(size, Image.Resampling.BICUBIC)))


def test_nearest_takes_the_pixels_pillow_takes():
    chance = random.Random(6)
    rows, columns = np.mgrid[:700, :900]
    coordinates = np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], axis=2)
    whole = Image.fromarray(coordinates.astype(np.uint8))
    for _ in range(200):
        image = whole.crop((0, 0, chance.randint(1, 900), chance.randint(1, 700)))
        size = chance.randint(1, 400), chance.randint(1, 400)
        out = np.zeros((3, size[1], size[0]), np.uint8)
        _native.resize_exact(np.array(image), "nearest", out)
        assert np.array_equal(out, planes(image.resize(size, Image.Resampling.NEAREST)))


@pytest.mark.parametrize("filter_name", ["bicubic", "nearest"])
@pytest.mark.parametrize(
    "plan",
    [
        Plan("random_resized_crop", 93, 61),
        Plan("random_resized_crop", 300, 280, scale=(0.01, 0.2)),
        Plan("resize", 50, 90),
        Plan("resize_center_crop", 97, 111, 112),
        Plan("resize_random_crop", 97, 111, 112, padding=(9, 20, 11, 30), pad_mode="reflect"),
    ],
    ids=lambda plan: f"{plan.geometry} {plan.out_height}",
)
def test_other_filters_of_the_pass_equal_pillow_on_the_same_box(photos, filter_name, plan):
    if filter_name == "bicubic" and int(pillow_version.split(".")[0]) < 13:
        pytest.skip("another order of passes")
    plan = changed(plan, filter=filter_name, pixel="uint8", flip_probability=0.5)
    for photo in photos:
        for index in range(6):
            ours = native(photo.read_bytes(), plan, 1, 2, index)
            assert np.array_equal(ours, prepare_image(Image.open(photo), plan, 1, 2, index))


# -- crops with padding ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("size", [(32, 32), (9, 5), (2, 1), (1, 1)])
def test_a_padded_crop_equals_pillow_and_numpy(photos, encode, mode, size):
    plan = Plan(
        "random_crop", 30, 20, padding=(21, 30, 22, 33), pad_mode=mode, fill=(9, 80, 200),
        pixel="uint8", flip_probability=0.5,
    )  # fmt: skip
    item = encode(photos[0], "4:4:4", size)
    for index in range(25):
        ours = native(item, plan, 0, 0, index)
        reference = prepare_image(Image.open(io.BytesIO(item)), plan, 0, 0, index)
        assert np.array_equal(ours, reference), index


def test_pad_if_needed_pads_what_is_missing_on_both_sides(photos, encode):
    item = encode(photos[0], "4:2:0", (40, 200))
    plan = Plan("random_crop", 100, 64, pad_if_needed=True, fill=(1, 2, 3), pixel="uint8")
    lefts = set()
    for index in range(60):
        ours = native(item, plan, 0, 0, index)
        assert np.array_equal(ours, prepare_image(Image.open(io.BytesIO(item)), plan, 0, 0, index))
        lefts.add(choose_draw(plan, 40, 200, 0, 0, index).x)
    assert min(lefts) >= -24 and max(lefts) <= 0 and len(lefts) > 15


def test_a_crop_larger_than_the_image_is_left_to_pillow_which_says_so(photos, encode):
    item = encode(photos[0], "4:2:0", (40, 200))
    plan = Plan("random_crop", 64, 64, pixel="uint8")
    assert native(item, plan, 0, 0, 0) is None
    with pytest.raises(ValueError, match="pad_if_needed=True"):
        prepare_image(Image.open(io.BytesIO(item)), plan, 0, 0, 0)


# -- types, layouts, erasing -------------------------------------------------------------------


def test_halves_are_rounded_as_numpy_and_torch_round_them():
    chance = np.random.default_rng(0)
    bits = chance.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    small = chance.normal(size=4000).astype(np.float32) * np.float32(3e-8)
    edges = np.float32(
        [0, -0.0, 65504, 65519.99, 65520, -1e9, 2**-24, 2**-25, 1.5 * 2**-24, 2**-14]
    )
    values = np.concatenate([bits[np.isfinite(bits)], small, small * 1000, edges])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).view(np.uint16)
    assert np.array_equal([_native.to_float16(float(v)) for v in values], expected)
    brain = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal([_native.to_bfloat16(float(v)) for v in values], brain)


@pytest.mark.parametrize("pixel", ["float16", "bfloat16"])
def test_half_samples_are_the_float_samples_rounded(photos, pixel):
    plan = changed(BASE, pixel="float32", mean=MEAN, std=STD)
    item = photos[0].read_bytes()
    values = torch.from_numpy(native(item, plan, 0, 0, 1))
    half = changed(plan, pixel=pixel)
    assert torch.equal(half.tensor_of(native(item, half, 0, 0, 1)), values.to(half.dtype))
    out = torch.zeros(half.shape, dtype=half.dtype)
    assert _native.prepare(item, half.native_pass(), 0, 0, 1, out)
    assert torch.equal(out, values.to(half.dtype))


@pytest.mark.parametrize("pixel", STORED)
def test_channels_last_holds_the_same_values(photos, pixel):
    item = photos[1].read_bytes()
    plan = changed(BASE, pixel=pixel, mean=MEAN, std=STD)
    last = changed(plan, layout="hwc")
    for index in range(4):
        a, b = native(item, plan, 0, 0, index), native(item, last, 0, 0, index)
        assert b.shape == (93, 61, 3) and np.array_equal(a, b.transpose(2, 0, 1))
        tensor = last.tensor_of(b[None])
        assert tensor.shape == (1, 3, 93, 61)
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_a_vertically_flipped_sample_is_the_mirror_of_the_unflipped(photos):
    plan = Plan("resize", 40, 50, pixel="uint8")
    item = photos[0].read_bytes()
    straight = native(item, plan, 0, 0, 0)
    upside_down = native(item, changed(plan, vertical_flip_probability=1.0), 0, 0, 0)
    both = changed(plan, vertical_flip_probability=1.0, flip_probability=1.0)
    assert np.array_equal(upside_down, straight[:, ::-1])
    assert np.array_equal(native(item, both, 0, 0, 0), straight[:, ::-1, ::-1])


@pytest.mark.parametrize("pixel", STORED)
@pytest.mark.parametrize("layout", ["chw", "hwc"])
def test_the_erased_rectangle_holds_the_value_and_nothing_else_changes(photos, pixel, layout):
    value = (7.0, 8.0, 9.0) if pixel == "uint8" else (0.25, -1.5, 2.0)
    plan = changed(BASE, pixel=pixel, mean=MEAN, std=STD, layout=layout)
    erased = changed(plan, erase=Erase(1.0, (0.1, 0.3), (0.5, 2.0), value))
    item = photos[0].read_bytes()
    before, after = (
        p.tensor_of(native(item, p, 0, 0, 5)).to(torch.float32) for p in (plan, erased)
    )
    x, y, width, height = choose_draw(erased, *Image.open(photos[0]).size, 0, 0, 5).erase
    assert width > 0 and height > 0
    before[:, y : y + height, x : x + width] = torch.tensor(value)[:, None, None]
    assert torch.equal(before, after)


@pytest.mark.parametrize("pixel", STORED)
@pytest.mark.parametrize("layout", ["chw", "hwc"])
def test_the_whole_pass_follows_the_reference(photos, pixel, layout):
    plan = changed(
        BASE, pixel=pixel, layout=layout, mean=MEAN, std=STD, vertical_flip_probability=0.5,
        colours=(JITTER, Colour("grey", 0.2)), filter="nearest",
        erase=Erase(0.5, (0.02, 0.33), (0.3, 3.3), (1.0, 2.0, 3.0)),
    )  # fmt: skip
    for photo in photos:
        for index in range(8):
            ours = native(photo.read_bytes(), plan, 4, 5, index)
            reference = prepare_image(Image.open(photo), plan, 4, 5, index)
            assert ours.shape == reference.shape and ours.dtype == reference.dtype
            a, b = (plan.tensor_of(stored).to(torch.float32) for stored in (ours, reference))
            # The same levels; (v - mean) / std and v * scale + bias round otherwise.
            close = {"uint8": 0.0, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}[pixel]
            assert torch.allclose(a, b, rtol=close, atol=close)


def test_bilinear_levels_with_colours_stay_within_a_level_times_the_factors(photos):
    plan = changed(BASE, colours=(JITTER,))
    for photo in photos:
        for index in range(8):
            factors = [
                f for _, f in choose_draw(plan, *Image.open(photo).size, 4, 5, index).colours
            ]
            most = int(np.prod([max(1.0, f) for f in factors]) * 2) + 3
            ours = native(photo.read_bytes(), plan, 4, 5, index).astype(int)
            reference = prepare_image(Image.open(photo), plan, 4, 5, index)
            assert np.abs(ours - reference).max() <= most


def test_what_an_item_was_prepared_before_leaves_no_trace(photos):
    plans = [
        changed(BASE, colours=(JITTER,)),
        changed(BASE, filter="bicubic", layout="hwc", pixel="float16"),
        Plan("random_crop", 30, 20, padding=(4, 4, 4, 4), pixel="uint8"),
        Plan("resize_random_crop", 30, 20, 33, padding=(4, 4, 4, 4), pixel="uint8"),
        BASE,
    ]
    item = photos[0].read_bytes()
    expected = [native(item, plan, 0, 0, 3) for plan in plans]
    for plan in plans:
        native(photos[1].read_bytes(), plan, 0, 0, 0)
        for again, right in zip(plans, expected, strict=True):
            assert np.array_equal(native(item, again, 0, 0, 3), right)


def test_an_array_of_another_layout_is_an_error(photos):
    plan = changed(BASE, layout="hwc", pixel="bfloat16")
    for out in (np.zeros((3, 93, 61), np.uint16), np.zeros((93, 61, 3), np.float16)):
        with pytest.raises(ValueError, match=r"\(93, 61, 3\) of bfloat16"):
            _native.prepare(photos[0].read_bytes(), plan.native_pass(), 0, 0, 0, out)
