"""Draws depend on (seed, epoch, index) only, are equal in C++ and Python, and well distributed."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordl import _native
from coordl.prep import draws
from coordl.prep.plan import Plan
from coordl.prep.recipe import Colour, Erase

WORD = st.integers(0, 2**64 - 1)
EDGE = st.integers(1, 70000)
TRAIN = Plan("random_resized_crop", 224, 224, flip_probability=0.5)


def ranges(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    pair = st.tuples(st.floats(low, high), st.floats(low, high))
    return pair.map(lambda p: (min(p), max(p)))


PLANS = st.one_of(
    st.builds(
        Plan,
        st.just("random_resized_crop"),
        st.integers(1, 500),
        st.integers(1, 500),
        scale=ranges(1e-4, 2.0),
        ratio=ranges(1e-2, 1e2),
        flip_probability=st.floats(0, 1),
    ),
    st.builds(
        Plan,
        st.sampled_from(["resize", "resize_center_crop", "center_crop"]),
        st.integers(1, 500),
        st.integers(1, 500),
        flip_probability=st.floats(0, 1),
    ),
)
FACTORS = st.one_of(st.none(), ranges(0.0, 3.0))
COLOURS = st.one_of(
    st.builds(Colour, st.just("grey"), st.floats(0, 1), st.just((None, None, None))),
    st.builds(Colour, st.just("jitter"), st.just(1.0), st.tuples(FACTORS, FACTORS, FACTORS)),
)
AUGMENTED = st.builds(
    Plan,
    st.sampled_from(["random_crop", "resize_random_crop", "resize"]),
    st.integers(1, 300),
    st.integers(1, 300),
    resize_shorter=st.integers(1, 500),
    padding=st.tuples(*[st.integers(0, 40)] * 4),
    pad_if_needed=st.booleans(),
    flip_probability=st.floats(0, 1),
    vertical_flip_probability=st.floats(0, 1),
    colours=st.lists(COLOURS, max_size=4).map(tuple),
    erase=st.builds(
        Erase, st.floats(0, 1), ranges(0.0, 1.0), ranges(0.01, 100), st.just((0.0, 0.0, 0.0))
    ),
)


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_philox_is_numpys_and_equal_on_both_sides(counter, key):
    # NumPy counts up before it generates.
    before = (sum(word << (64 * i) for i, word in enumerate(counter)) - 1) % 2**256
    numpy = np.random.Philox(counter=before, key=sum(w << (64 * i) for i, w in enumerate(key)))
    expected = tuple(int(word) for word in numpy.random_raw(4))
    assert draws.philox(counter, key) == expected
    assert tuple(_native.philox(counter, key)) == expected


@settings(max_examples=500)
@given(st.one_of(PLANS, AUGMENTED), EDGE, EDGE, WORD, WORD, WORD)
def test_native_and_python_draws_are_equal(plan, width, height, seed, epoch, index):
    ours = draws.choose_draw(plan, width, height, seed, epoch, index)
    native = _native.choose_draw(plan.native_pass(), width, height, seed, epoch, index)
    assert tuple(ours) == tuple(native)


@pytest.mark.parametrize(
    ("key", "draw"),
    [
        ((0, 0, 0), (114, 19, 355, 276, False)),
        ((1, 2, 3), (82, 35, 335, 261, False)),
        ((2**64 - 1, 5, 10**6), (71, 1, 276, 336, True)),
    ],
)
def test_the_draws_of_the_first_version_are_still_the_same(key, draw):
    assert draws.choose_draw(TRAIN, 500, 375, *key)[:5] == draw


def test_what_else_is_drawn_moves_neither_crop_nor_mirror():
    more = Plan(
        **{
            **vars(TRAIN),
            "vertical_flip_probability": 0.5,
            "colours": (Colour("jitter", 1.0, ((0.5, 1.5),) * 3), Colour("grey", 0.5)),
            "erase": Erase(1.0, (0.1, 0.2), (0.5, 2.0), (0.0, 0.0, 0.0)),
        }
    )
    assert [draw[:5] for draw in many(more, 200)] == [draw[:5] for draw in many(TRAIN, 200)]


@given(st.floats(1e-9, 1e9))
def test_portable_log_and_exp_are_those_of_libm_to_the_last_digits(x):
    assert draws._log(x) == pytest.approx(math.log(x), rel=1e-14, abs=1e-15)
    assert draws._exp(math.log(x)) == pytest.approx(x, rel=1e-13)


@settings(max_examples=300)
@given(PLANS, st.integers(500, 5000), st.integers(500, 5000), WORD)
def test_the_box_lies_inside_the_image(plan, width, height, index):
    draw = draws.choose_draw(plan, width, height, 1, 2, index)
    assert draw.width > 0 and draw.height > 0
    assert draw.x >= 0 and draw.x + draw.width <= width
    assert draw.y >= 0 and draw.y + draw.height <= height


def many(plan: Plan, count: int = 4000, size: tuple[int, int] = (500, 375)) -> list[draws.Draw]:
    native = plan.native_pass()
    return [draws.Draw(*_native.choose_draw(native, *size, 11, 0, index)) for index in range(count)]


def test_half_of_the_samples_are_flipped():
    flips = sum(draw.flip for draw in many(TRAIN))
    assert abs(flips - 2000) < 4 * math.sqrt(1000)


def test_never_and_always_flip_are_exact():
    assert not any(draw.flip for draw in many(Plan("resize", 8, 8, flip_probability=0.0), 500))
    assert all(draw.flip for draw in many(Plan("resize", 8, 8, flip_probability=1.0), 500))


def test_area_and_shape_of_crops_are_spread_as_torchvisions():
    torch = pytest.importorskip("torch")
    from PIL import Image

    from coordl.transforms import RandomResizedCrop

    torch.manual_seed(3)
    image = Image.new("L", (500, 375))
    theirs = [
        RandomResizedCrop.get_params(image, TRAIN.scale, TRAIN.ratio)[::-1] for _ in range(4000)
    ]
    ours = many(TRAIN)
    for measure in (
        lambda w, h: w * h / (500 * 375),
        lambda w, h: math.log(w / h),
    ):
        a = [measure(w, h) for _, _, w, h, *_ in ours]
        b = [measure(w, h) for w, h, *_ in theirs]
        error = 4 * math.sqrt((statistics.variance(a) + statistics.variance(b)) / 4000)
        assert abs(statistics.mean(a) - statistics.mean(b)) < error
        for cut in (0.1, 0.25, 0.5, 0.75, 0.9):
            at = np.quantile(b, cut)
            assert abs(np.mean(np.array(a) <= at) - cut) < 4 * math.sqrt(2 * 0.25 / 4000)


def test_another_seed_epoch_or_index_is_another_draw():
    native = TRAIN.native_pass()
    keys = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1), (2, 1, 3)]
    assert len({_native.choose_draw(native, 4000, 3000, *key)[:4] for key in keys}) == len(keys)


def test_extreme_shapes_take_the_central_crop():
    plan = Plan("random_resized_crop", 8, 8, scale=(0.9, 1.0))
    assert draws.choose_draw(plan, 4000, 40, 0, 0, 0)[:4] == (1973, 0, 53, 40)
    assert draws.choose_draw(plan, 40, 4000, 0, 0, 0)[:4] == (0, 1973, 40, 53)


def test_factors_are_spread_over_their_ranges_and_orders_are_equally_likely():
    plan = Plan("resize", 8, 8, colours=(Colour("jitter", 1.0, ((0.5, 1.5), None, (0.0, 2.0))),))
    colours = [draw.colours for draw in many(plan)]
    assert all(sorted(name for name, _ in ops) == ["brightness", "saturation"] for ops in colours)
    first = sum(ops[0][0] == "brightness" for ops in colours)
    assert abs(first - 2000) < 4 * math.sqrt(1000)
    for name, low, high in (("brightness", 0.5, 1.5), ("saturation", 0.0, 2.0)):
        factors = [dict(ops)[name] for ops in colours]
        assert low <= min(factors) < low + 0.01 and high - 0.01 < max(factors) <= high
        error = 4 * (high - low) / math.sqrt(12 * 4000)
        assert abs(statistics.mean(factors) - (low + high) / 2) < error


def test_the_erased_rectangle_lies_inside_and_is_spread_as_torchvisions():
    import torch

    from coordl.transforms import RandomErasing

    scale, ratio = (0.02, 0.33), (0.3, 3.3)
    plan = Plan("resize", 60, 80, erase=Erase(1.0, scale, ratio, (0.0, 0.0, 0.0)))
    torch.manual_seed(1)
    tensor = torch.zeros(3, 60, 80)
    theirs = [RandomErasing.get_params(tensor, scale, ratio, [0.0])[2:4] for _ in range(4000)]
    ours = [draw.erase for draw in many(plan)]
    assert all(x + w <= 80 and y + h <= 60 and min(x, y) >= 0 for x, y, w, h in ours)
    a, b = [w * h for _, _, w, h in ours], [w * h for h, w in theirs]
    error = 4 * math.sqrt((statistics.variance(a) + statistics.variance(b)) / 4000)
    assert abs(statistics.mean(a) - statistics.mean(b)) < error


@settings(max_examples=300)
@given(AUGMENTED, st.integers(300, 900), st.integers(300, 900), WORD)
def test_a_padded_crop_lies_inside_the_padded_image(plan, width, height, index):
    draw = draws.choose_draw(plan, width, height, 1, 2, index)
    if plan.geometry == "random_crop":
        left, top, right, bottom = plan.padding
        assert -left <= draw.x and draw.x + draw.width <= width + right
        assert -top <= draw.y and draw.y + draw.height <= height + bottom


def test_a_crop_after_a_resize_is_that_of_the_resized_image():
    after = Plan("resize_random_crop", 64, 48, 96, padding=(1, 2, 3, 4))
    alone = Plan("random_crop", 64, 48, padding=(1, 2, 3, 4))
    for width, height, resized in [(400, 300, (128, 96)), (300, 401, (96, 128))]:
        for index in range(50):
            expected = draws.choose_draw(alone, *resized, 1, 2, index)
            assert draws.choose_draw(after, width, height, 1, 2, index) == expected
