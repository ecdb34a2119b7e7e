"""Which transforms become one native pass, and what is said of the others."""

from __future__ import annotations

import pickle
import types

import pytest
import torch

from coordl import transforms as ours
from coordl.prep.plan import Plan, Refusal, compile_plan
from coordl.prep.recipe import Colour

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def plan_of(*steps) -> Plan:
    plan = compile_plan(ours.Compose(list(steps)))
    assert isinstance(plan, Plan), plan
    return plan


def reason_of(*steps) -> str:
    refusal = compile_plan(ours.Compose(list(steps)))
    assert isinstance(refusal, Refusal), refusal
    return refusal.reason


def test_the_usual_training_recipe_is_one_pass():
    plan = plan_of(
        ours.RandomResizedCrop(224),
        ours.RandomHorizontalFlip(),
        ours.ToTensor(),
        ours.Normalize(MEAN, STD),
    )
    assert (plan.geometry, plan.shape, plan.dtype) == (
        "random_resized_crop",
        (3, 224, 224),
        torch.float32,
    )
    assert (plan.flip_probability, plan.mean, plan.std) == (0.5, tuple(MEAN), tuple(STD))


def test_the_usual_validation_recipe_is_one_pass():
    plan = plan_of(ours.Resize(256), ours.CenterCrop((224, 200)), ours.ToTensor())
    assert (plan.geometry, plan.resize_shorter) == ("resize_center_crop", 256)
    assert (plan.out_height, plan.out_width, plan.flip_probability) == (224, 200, 0.0)


def test_resize_to_height_and_width_and_center_crop_alone_are_passes():
    assert plan_of(ours.Resize((64, 80)), ours.ToTensor()).geometry == "resize"
    assert plan_of(ours.CenterCrop(64), ours.ToTensor()).geometry == "center_crop"


def test_colours_mirrors_and_erasing_are_part_of_the_pass():
    plan = plan_of(
        ours.RandomResizedCrop((64, 80), interpolation="bicubic"),
        ours.RandomVerticalFlip(0.25),
        ours.ColorJitter(0.4, (0.5, 1.5), 0),
        ours.RandomGrayscale(0.2),
        ours.RandomHorizontalFlip(),
        ours.ToTensor(),
        ours.RandomErasing(0.3, value=(0.5, 0.6, 0.7)),
        ours.Normalize(MEAN, STD),
    )
    assert (plan.filter, plan.vertical_flip_probability) == ("bicubic", 0.25)
    assert plan.colours == (
        Colour("jitter", 1.0, ((0.6, 1.4), (0.5, 1.5), None)),
        Colour("grey", 0.2),
    )
    assert plan.erase is not None and plan.erase.probability == 0.3
    # Erased before Normalize, so the value is normalised too.
    assert plan.erase.value == pytest.approx(
        [(v - m) / s for v, m, s in zip((0.5, 0.6, 0.7), MEAN, STD, strict=True)]
    )


def test_a_value_erased_after_normalize_stands_as_it_is():
    erasing = ours.RandomErasing(value=0.5)
    plan = plan_of(ours.CenterCrop(8), ours.ToTensor(), ours.Normalize(MEAN, STD), erasing)
    assert plan.erase.value == (0.5, 0.5, 0.5)


def test_a_value_erased_in_levels_is_scaled_with_them():
    steps = [ours.CenterCrop(8), ours.PILToTensor(), ours.RandomErasing(value=51)]
    assert plan_of(*steps).erase.value == (51, 51, 51)
    scaled = plan_of(*steps, ours.ConvertImageDtype(torch.float16))
    assert scaled.erase.value == pytest.approx((0.2, 0.2, 0.2))


@pytest.mark.parametrize(
    ("padding", "expected"),
    [(None, (0, 0, 0, 0)), (4, (4,) * 4), ([2, 3], (2, 3, 2, 3)), ((1, 2, 3, 4), (1, 2, 3, 4))],
)
def test_random_crop_with_any_padding_is_a_pass(padding, expected):
    crop = ours.RandomCrop(32, padding, pad_if_needed=True, fill=(1, 2, 3))
    plan = plan_of(crop, ours.ToTensor())
    assert (plan.geometry, plan.padding, plan.pad_if_needed) == ("random_crop", expected, True)
    assert (plan.pad_mode, plan.fill) == ("constant", (1, 2, 3))


def test_resize_and_random_crop_are_one_pass():
    crop = ours.RandomCrop((224, 200), 4, padding_mode="edge")
    plan = plan_of(ours.Resize(256, "bicubic"), crop, ours.RandomHorizontalFlip(), ours.ToTensor())
    assert (plan.geometry, plan.resize_shorter, plan.filter) == (
        "resize_random_crop",
        256,
        "bicubic",
    )
    assert (plan.shape, plan.padding, plan.pad_mode) == ((3, 224, 200), (4,) * 4, "edge")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_a_pass_wherever_it_is_asked_for(dtype):
    half, mean = ours.ConvertImageDtype(dtype), ours.Normalize(MEAN, STD)
    assert plan_of(ours.CenterCrop(8), ours.PILToTensor(), half, mean).dtype is dtype
    assert plan_of(ours.CenterCrop(8), ours.ToTensor(), mean, half).dtype is dtype


def test_nested_composes_are_one_pass():
    inner = ours.Compose([ours.ToTensor(), ours.Normalize([0.5], [0.25])])
    plan = plan_of(ours.CenterCrop(64), inner)
    assert (plan.mean, plan.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_plan_travels_to_another_process():
    plan = plan_of(ours.CenterCrop(64), ours.ToTensor())
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan and again.steps == plan.steps
    assert again.native_pass().sample_bytes == 3 * 64 * 64 * 4


def test_describe_shows_the_steps_or_the_reason():
    text = "\n".join(plan_of(ours.CenterCrop(64), ours.ToTensor()).describe())
    assert "one native pass" in text and "CenterCrop(size=(64, 64))" in text
    assert "Python" in compile_plan(None).describe()[0]


class MyCrop(ours.RandomResizedCrop):
    def __call__(self, image):
        return image


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([MyCrop(8), ours.ToTensor()], "MyCrop is a subclass of RandomResizedCrop"),
        ([ours.CenterCrop(8), lambda image: image], "function has no native form"),
        ([ours.CenterCrop(8)], "nothing makes tensors"),
        ([ours.ToTensor()], "one size"),
        ([ours.Resize(8), ours.ToTensor()], "without a crop"),
        ([ours.Resize(8), ours.RandomCrop(8), ours.CenterCrop(4)], "follows another"),
        ([ours.Resize((8, 9)), ours.RandomCrop(8), ours.ToTensor()], "follows another"),
        ([ours.Resize(8), ours.CenterCrop(9), ours.ToTensor()], "pads"),
        ([ours.CenterCrop(8), ours.Resize((4, 4)), ours.ToTensor()], "follows another"),
        ([ours.RandomHorizontalFlip(), ours.CenterCrop(8), ours.ToTensor()], "before"),
        ([ours.CenterCrop(8), ours.Normalize(MEAN, STD)], "float"),
        ([ours.ToTensor(), ours.CenterCrop(8)], "takes Pillow images"),
        ([ours.CenterCrop(8), ours.ToTensor(), ours.ToTensor()], "takes Pillow images"),
        ([ours.CenterCrop(8), *[ours.RandomHorizontalFlip()] * 2, ours.ToTensor()], "two"),
        ([ours.CenterCrop(8), ours.ToTensor(), *[ours.Normalize(MEAN, STD)] * 2], "two"),
        ([ours.CenterCrop(8), ours.ToTensor(), ours.Normalize([1, 2], [1, 2])], "2 channels"),
        ([ours.CenterCrop(20000), ours.ToTensor()], "20000 px"),
        ([ours.ColorJitter(0.5), ours.CenterCrop(8), ours.ToTensor()], "before the images have"),
        ([ours.CenterCrop(8), ours.ColorJitter(hue=0.1), ours.ToTensor()], "hue"),
        ([ours.CenterCrop(8), ours.Grayscale(), ours.ToTensor()], "one channel"),
        ([ours.CenterCrop(8), *[ours.RandomGrayscale()] * 5, ours.ToTensor()], "more than 4"),
        ([ours.CenterCrop(8), ours.RandomErasing(), ours.ToTensor()], "needs a tensor"),
        ([ours.CenterCrop(8), ours.ToTensor(), *[ours.RandomErasing()] * 2], "two RandomErasing"),
        ([ours.CenterCrop(8), ours.ToTensor(), ours.RandomErasing(value="random")], "random"),
        ([ours.CenterCrop(8), ours.PILToTensor(), ours.RandomErasing(value=0.5)], "0..255"),
        ([ours.CenterCrop(8), ours.PILToTensor(), ours.Normalize(MEAN, STD)], "float"),
        ([ours.RandomCrop(8, 4, True, padding_mode="reflect"), ours.ToTensor()], "pad_if_needed"),
        ([ours.RandomCrop(8, fill=256), ours.ToTensor()], "levels in 0..255"),
        ([ours.CenterCrop(8), ours.ConvertImageDtype(torch.float16)], "before the image is"),
        ([ours.CenterCrop(8), ours.PILToTensor(), ours.ConvertImageDtype(torch.float64)], "no nat"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(steps, reason):
    assert reason in reason_of(*steps)


def mine(picture):
    return picture


@pytest.mark.parametrize(
    ("steps", "count", "takes"),
    [
        (
            [ours.RandomResizedCrop(8), ours.RandomHorizontalFlip(), mine, ours.ToTensor()],
            2,
            "image",
        ),
        ([ours.CenterCrop(8), ours.ToTensor(), ours.Normalize(MEAN, STD), mine], 3, "tensor"),
        ([ours.Resize(8), ours.CenterCrop(8), mine, mine], 2, "image"),
        ([ours.CenterCrop(8), ours.ToTensor(), *[ours.RandomErasing()] * 2], 3, "tensor"),
        ([ours.CenterCrop(8), ours.ColorJitter(0.1, hue=0.1), ours.ToTensor()], 1, "image"),
    ],
)
def test_the_recognised_part_of_a_refused_transform_is_a_pass_of_its_own(steps, count, takes):
    prefix = compile_plan(ours.Compose(steps)).prefix
    assert prefix is not None
    assert (len(prefix.plan.steps), prefix.takes) == (count, takes)
    assert prefix.rest == tuple(steps[count:])
    assert prefix.plan.layout == ("hwc" if takes == "image" else "chw")
    assert takes == "tensor" or prefix.plan.dtype is torch.uint8


@pytest.mark.parametrize(
    "steps",
    [
        [mine, ours.CenterCrop(8), ours.ToTensor()],
        [ours.Resize(8), mine, ours.CenterCrop(8)],
        [ours.ToTensor(), mine],
    ],
)
def test_where_python_comes_first_there_is_no_prefix(steps):
    assert compile_plan(ours.Compose(steps)).prefix is None


def test_a_subclass_of_compose_is_refused():
    class Mine(ours.Compose):
        pass

    assert "subclass of Compose" in compile_plan(Mine([ours.CenterCrop(8)])).reason


def test_a_method_overridden_on_the_object_is_refused():
    crop = ours.RandomResizedCrop(8)
    crop.get_params = lambda *_: (0, 0, 1, 1)
    assert "get_params is overridden on this object" in reason_of(crop, ours.ToTensor())


def test_a_method_patched_on_the_class_is_refused(monkeypatch):
    monkeypatch.setattr(ours.CenterCrop, "__call__", lambda self, image: image)
    assert "__call__ is patched by" in reason_of(ours.CenterCrop(8), ours.ToTensor())


def test_a_class_that_only_borrows_the_name_is_refused():
    fake = type("CenterCrop", (), {"__module__": "torchvision.transforms.transforms", "size": 8})
    assert "not the class" in reason_of(fake(), ours.ToTensor())


def test_attributes_changed_to_something_else_are_refused():
    crop = ours.RandomResizedCrop(8)
    crop.scale = (float("nan"), 1.0)
    assert "nan" in reason_of(crop, ours.ToTensor())
    crop = ours.RandomResizedCrop(8)
    crop.interpolation = "lanczos"
    assert "lanczos interpolation" in reason_of(crop, ours.ToTensor())


def test_torchvision_is_not_imported_to_recognise_it():
    import subprocess
    import sys

    code = (
        "import sys; from coordl import transforms as T; from coordl.prep.plan import compile_plan;"
        "compile_plan(T.Compose([T.CenterCrop(8), T.ToTensor()])); compile_plan(print);"
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def real_recipes(torchvision: types.ModuleType) -> dict[str, object]:
    v1, v2 = torchvision.transforms, torchvision.transforms.v2
    float32 = v2.ToDtype(torch.float32, scale=True)
    return {
        "v1 train": v1.Compose(
            [
                v1.RandomResizedCrop(224),
                v1.RandomHorizontalFlip(),
                v1.ToTensor(),
                v1.Normalize(MEAN, STD),
            ]
        ),
        "v1 bytes": v1.Compose([v1.Resize((64, 80)), v1.PILToTensor()]),
        "v1 validation": v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor()]),
        "v2 train": v2.Compose(
            [
                v2.ToImage(),
                v2.RandomResizedCrop(224, antialias=True),
                v2.RandomHorizontalFlip(p=0.25),
                float32,
                v2.Normalize(MEAN, STD),
            ]
        ),
        "v2 train as documented": v2.Compose(
            [
                v2.ToImage(),
                v2.ToDtype(torch.uint8, scale=True),
                v2.RandomResizedCrop(size=(224, 224), antialias=True),
                v2.RandomHorizontalFlip(p=0.5),
                float32,
                v2.Normalize(mean=MEAN, std=STD),
            ]
        ),
        "v2 validation": v2.Compose(
            [v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), float32, v2.Normalize(MEAN, STD)]
        ),
        "v2 bytes": v2.Compose([v2.PILToTensor(), v2.CenterCrop(100)]),
        "v1 augmented": v1.Compose(
            [
                v1.RandomResizedCrop(64, interpolation=v1.InterpolationMode.BICUBIC),
                v1.RandomVerticalFlip(),
                v1.ColorJitter(0.4, 0.4, 0.4),
                v1.RandomGrayscale(),
                v1.PILToTensor(),
                v1.ConvertImageDtype(torch.bfloat16),
                v1.Normalize(MEAN, STD),
                v1.RandomErasing(value=(0, 0.5, 1)),
            ]
        ),
        "v1 padded": v1.Compose([v1.RandomCrop(32, [4, 3]), v1.Grayscale(3), v1.ToTensor()]),
        "v2 augmented": v2.Compose(
            [
                v2.RandomCrop(32, (1, 2, 3, 4), padding_mode="edge"),
                v2.ToImage(),
                v2.ColorJitter(brightness=0.4, contrast=(0.2, 0.5)),
                v2.RandomGrayscale(0.3),
                v2.RandomVerticalFlip(),
                v2.ToDtype(torch.float16, scale=True),
                v2.Normalize(MEAN, STD),
                v2.RandomErasing(0.25),
            ]
        ),
        "v2 half": v2.Compose(
            [
                v2.Resize(64),
                v2.CenterCrop(60),
                v2.ToImage(),
                v2.ToDtype(torch.float16, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        ),
        "v2 brain": v2.Compose(
            [v2.Resize((64, 60)), v2.ToImage(), v2.ToDtype(torch.bfloat16, scale=True)]
        ),
        "v1 bicubic": v1.Compose(
            [v1.Resize(70, v1.InterpolationMode.BICUBIC), v1.CenterCrop(64), v1.PILToTensor()]
        ),
        "v1 nearest": v1.Compose(
            [v1.Resize((64, 70), v1.InterpolationMode.NEAREST), v1.Grayscale(3), v1.PILToTensor()]
        ),
    }


def test_recipes_of_the_real_torchvision_are_recognised(torchvision):
    plans = {name: compile_plan(recipe) for name, recipe in real_recipes(torchvision).items()}
    assert all(isinstance(plan, Plan) for plan in plans.values()), plans
    assert plans["v2 train"].flip_probability == 0.25
    assert plans["v1 bytes"].dtype is plans["v2 bytes"].dtype is torch.uint8
    assert plans["v2 augmented"].padding == (1, 2, 3, 4)
    assert plans["v1 padded"].padding == (4, 3, 4, 3)
    assert plans["v1 augmented"].dtype is torch.bfloat16
    assert plans["v2 augmented"].erase.value == (0.0, 0.0, 0.0)
    assert plans["v1 validation"].resize_shorter == plans["v2 validation"].resize_shorter == 256


def last_bits(values: torch.Tensor, gain: float) -> torch.Tensor | int:
    """Rounding of a half type in 0..1 and after the gain of Normalize; 0 for other types."""
    if values.itemsize != 2:
        return 0
    return torch.finfo(values.dtype).eps * (gain + values.double().abs())


def test_validation_of_the_real_torchvision_equals_the_pass(torchvision, photos):
    from PIL import Image

    from coordl import _native

    names = ("v1 validation", "v1 bytes", "v2 validation", "v2 bytes", "v2 half", "v2 brain")
    for name in (*names, "v1 bicubic", "v1 nearest"):
        recipe = real_recipes(torchvision)[name]
        plan = compile_plan(recipe)
        step = 1 if plan.pixel == "uint8" else 1 / 255 / (min(plan.std) if plan.std else 1)
        for photo in photos:
            out = torch.zeros(plan.shape, dtype=plan.dtype)
            assert _native.prepare(photo.read_bytes(), plan.native_pass(), 0, 0, 0, out)
            theirs = recipe(Image.open(photo).convert("RGB"))
            assert theirs.shape == out.shape and theirs.dtype == out.dtype
            apart = (out.double() - theirs.double()).abs()
            # torchvision also calculates in the half type: the last bits of its 0..1 come on top.
            last = last_bits(out, step * 255)
            assert (apart <= step * 1.001 + last).all(), (name, photo.name)


def test_altered_transforms_of_the_real_torchvision_are_refused(torchvision):
    v1, v2 = torchvision.transforms, torchvision.transforms.v2

    def reason(*steps) -> str:
        return compile_plan(v1.Compose(list(steps))).reason

    class Mine(v1.RandomResizedCrop):
        def forward(self, image):
            return image

    assert "Mine is a subclass of RandomResizedCrop" in reason(Mine(8), v1.ToTensor())
    overridden = v2.CenterCrop(8)
    overridden.forward = lambda image: image
    assert "forward is overridden" in reason(overridden, v1.ToTensor())
    hooked = v1.CenterCrop(8)
    hooked.register_forward_hook(lambda *_: None)
    assert "forward hook" in reason(hooked, v1.ToTensor())
    bicubic = v2.RandomResizedCrop(8, interpolation=v1.InterpolationMode.BICUBIC)
    assert "bicubic interpolation gives other pixels" in reason(v2.ToImage(), bicubic)
    lanczos = v1.RandomResizedCrop(8, interpolation=v1.InterpolationMode.LANCZOS)
    assert "lanczos" in reason(lanczos, v1.ToTensor())
    assert "antialias" in reason(v1.RandomResizedCrop(8, antialias=False), v1.ToTensor())
    assert "max_size" in reason(v1.Resize(8, max_size=9), v1.CenterCrop(8), v1.ToTensor())
    turned = v1.ColorJitter(hue=0.1)
    assert "hue" in reason(v1.CenterCrop(8), turned, v1.ToTensor())
    assert "floats" in reason(v1.ToTensor(), v1.RandomResizedCrop(8))
    double = v2.ToDtype(torch.float64, scale=True)
    assert "float64" in reason(v2.CenterCrop(8), v2.ToImage(), double)
    back = [v2.ToDtype(kind, scale=True) for kind in (torch.float16, torch.float32)]
    assert "rounded to float16" in reason(v2.CenterCrop(8), v2.ToImage(), *back)
    unscaled = v2.ToDtype(torch.float32)
    assert "scale=True" in reason(v2.CenterCrop(8), v2.ToImage(), unscaled)
    early = v2.ToDtype(torch.float32, scale=True)
    assert "before the image is a tensor" in reason(early, v2.CenterCrop(8), v2.ToImage())
