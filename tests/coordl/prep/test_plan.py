"""Which transforms become one native pass, and what is said of the others."""

from __future__ import annotations

import pickle
import types

import pytest
import torch

from coordl import transforms as ours
from coordl.prep.plan import Plan, Refusal, compile_plan

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
        ([ours.Resize(8), ours.ToTensor()], "without CenterCrop"),
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
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(steps, reason):
    assert reason in reason_of(*steps)


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
    crop.interpolation = "nearest"
    assert "nearest interpolation" in reason_of(crop, ours.ToTensor())


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
    }


def test_recipes_of_the_real_torchvision_are_recognised(torchvision):
    plans = {name: compile_plan(recipe) for name, recipe in real_recipes(torchvision).items()}
    assert all(isinstance(plan, Plan) for plan in plans.values()), plans
    assert plans["v2 train"].flip_probability == 0.25
    assert plans["v1 bytes"].dtype is plans["v2 bytes"].dtype is torch.uint8
    assert plans["v1 validation"].resize_shorter == plans["v2 validation"].resize_shorter == 256


def test_validation_of_the_real_torchvision_equals_the_pass(torchvision, photos):
    import numpy as np
    from PIL import Image

    from coordl import _native

    for name in ("v1 validation", "v1 bytes", "v2 validation", "v2 bytes"):
        recipe = real_recipes(torchvision)[name]
        plan = compile_plan(recipe)
        step = 1 if plan.pixel == "uint8" else 1 / 255 / (min(plan.std) if plan.std else 1)
        for photo in photos:
            out = np.zeros(plan.shape, plan.pixel)
            assert _native.prepare(photo.read_bytes(), plan.native_pass(), 0, 0, 0, out)
            theirs = recipe(Image.open(photo).convert("RGB")).numpy()
            assert theirs.shape == out.shape and theirs.dtype == out.dtype
            apart = np.abs(out.astype(np.float64) - theirs)
            assert apart.max() <= step * 1.001, (name, photo.name)


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
    bicubic = v1.RandomResizedCrop(8, interpolation=v1.InterpolationMode.BICUBIC)
    assert "bicubic" in reason(bicubic, v1.ToTensor())
    assert "antialias" in reason(v1.RandomResizedCrop(8, antialias=False), v1.ToTensor())
    assert "max_size" in reason(v1.Resize(8, max_size=9), v1.CenterCrop(8), v1.ToTensor())
    assert "ColorJitter" in reason(v1.CenterCrop(8), v1.ColorJitter(), v1.ToTensor())
    assert "floats" in reason(v1.ToTensor(), v1.RandomResizedCrop(8))
    half = v2.ToDtype(torch.float16, scale=True)
    assert "float16" in reason(v2.CenterCrop(8), v2.ToImage(), half)
    unscaled = v2.ToDtype(torch.float32)
    assert "scale=True" in reason(v2.CenterCrop(8), v2.ToImage(), unscaled)
    early = v2.ToDtype(torch.float32, scale=True)
    assert "before the image is a tensor" in reason(early, v2.CenterCrop(8), v2.ToImage())
