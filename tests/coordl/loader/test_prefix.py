"""Samples that begin with a native pass and end in the user's own Python, in torch's workers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from recipe import native_threads

import coordl
from coordl import transforms as T
from coordl.prep.keyed import keyed_draws
from coordl.prep.plan import compile_plan
from coordl.prep.vision import prepare_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Posterize:
    """The user's own, on Pillow images, with draws of its own."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        assert isinstance(picture, Image.Image) and picture.mode == "RGB"
        return ImageOps.posterize(picture, random.randint(2, 8))


class Noise:
    """The user's own, on tensors."""

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor + torch.rand(1) + float(np.random.rand())


def on_images() -> T.Compose:
    return T.Compose(
        [T.RandomResizedCrop((40, 32)), T.RandomHorizontalFlip(), Posterize(), T.ToTensor()]
    )


def on_tensors() -> T.Compose:
    crop = T.RandomCrop(48, padding=4)
    return T.Compose([crop, T.ColorJitter(0.4), T.ToTensor(), T.Normalize(MEAN, STD), Noise()])


def by_hand(path: str, transform: T.Compose, key: tuple[int, int, int]) -> torch.Tensor:
    """The sample as Pillow makes the prefix of it, with the same key."""
    prefix = compile_plan(transform).prefix
    with keyed_draws(*key):
        with Image.open(path) as picture:
            levels = prepare_image(picture, prefix.plan, *key)
        image = prefix.takes == "image"
        sample = Image.fromarray(levels) if image else prefix.plan.tensor_of(levels)
        for step in prefix.rest:
            sample = step(sample)
    return sample


def same(left: list[Any], right: list[Any]) -> bool:
    return all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        for a, b in zip(left, right, strict=True)
    )


def test_the_prefix_is_pillows_within_a_level_and_the_rest_is_the_users(folder: Path) -> None:
    data = coordl.ImageFolder(folder, on_tensors())
    loader = coordl.DataLoader(data, 22, seed=9)
    for epoch in range(2):
        images, labels = next(iter(loader))
        assert labels.tolist() == data.targets
        for index, (path, _) in enumerate(data.samples):
            expected = by_hand(path, on_tensors(), (9, epoch, index))
            assert (images[index] - expected).abs().max() <= 1.01 / 255 / min(STD)


def test_pillow_images_are_handed_over_as_pillow_makes_them(folder: Path) -> None:
    """Nearest is exact, so that what the user's transform gets is the same in every level."""
    transform = T.Compose(
        [T.Resize((40, 32), "nearest"), T.RandomVerticalFlip(), Posterize(), T.ToTensor()]
    )
    data = coordl.ImageFolder(folder, transform)
    images, _ = next(iter(coordl.DataLoader(data, 22, seed=9)))
    for index, (path, _) in enumerate(data.samples):
        assert torch.equal(images[index], by_hand(path, transform, (9, 0, index)))


@pytest.mark.parametrize("transform", [on_images, on_tensors])
def test_seed_gives_the_same_with_any_number_of_workers(folder: Path, transform: Any) -> None:
    data = coordl.ImageFolder(folder, transform())
    runs = [list(coordl.DataLoader(data, 5, seed=1, num_workers=n)) for n in (0, 1, 2)]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    assert native_threads() == []


def test_without_seed_manual_seed_repeats_an_epoch(folder: Path) -> None:
    data = coordl.ImageFolder(folder, on_images())
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        runs.append(list(coordl.DataLoader(data, 5, num_workers=1, shuffle=True)))
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_spawned_workers_do_the_same(folder: Path) -> None:
    data = coordl.ImageFolder(folder, on_images())
    options: dict[str, Any] = {"num_workers": 1, "seed": 1}
    spawned = coordl.DataLoader(data, 11, multiprocessing_context="spawn", **options)
    assert same(list(spawned), list(coordl.DataLoader(data, 11, **options)))


def test_a_collate_fn_of_ones_own_gets_native_samples(folder: Path) -> None:
    data = coordl.ImageFolder(folder, T.Compose([T.RandomResizedCrop(24), T.ToTensor()]))
    loader = coordl.DataLoader(data, 4, collate_fn=list, seed=2)
    (picture, label), *_ = next(iter(loader))
    assert picture.shape == (3, 24, 24) and picture.dtype == torch.float32 and label == 0
    assert "after a native pass" in loader.plan() and "collate_fn" in loader.plan()


def test_the_cache_serves_a_prefix(folder: Path) -> None:
    loader = coordl.DataLoader(coordl.ImageFolder(folder, on_images()), 4, seed=1, cache="100%")
    first, second = list(loader), list(loader)
    assert len(first) == len(second) == 6
    assert [epoch["misses"] for epoch in loader.stats()["epochs"]] == [22, 0]


def test_other_formats_go_through_pillow_and_damage_is_named(folder: Path) -> None:
    data = coordl.ImageFolder(folder, on_images())
    with Image.open(data.samples[2][0]) as picture:
        picture.convert("CMYK").save(data.samples[2][0], "JPEG")
    Path(data.samples[5][0]).write_bytes(b"no picture")
    loader = coordl.DataLoader(data, 1, seed=9)
    batches = iter(loader)
    images = [next(batches)[0] for _ in range(5)]
    assert torch.equal(images[2][0], by_hand(data.samples[2][0], on_images(), (9, 0, 2)))
    with pytest.raises(coordl.ItemError, match="sample 5"):
        next(batches)


def test_the_plan_names_what_runs_where(folder: Path) -> None:
    loader = coordl.DataLoader(coordl.ImageFolder(folder, on_images()), 4, num_workers=2)
    text = loader.plan()
    assert "Posterize has no native form" in text and "2 worker process(es)" in text
    assert "after a native pass" in text and "RandomResizedCrop(size=(40, 32)" in text
    python = coordl.DataLoader(loader.dataset, 4, prep="python")
    assert "native pass" not in python.plan()


def test_augmentations_of_the_real_torchvision_follow_the_pass(torchvision, folder: Path) -> None:
    v1, v2 = torchvision.transforms, torchvision.transforms.v2
    float32 = v2.ToDtype(torch.float32, scale=True)
    for transform, takes in (
        (v1.Compose([v1.RandomResizedCrop(32), v1.TrivialAugmentWide(), v1.ToTensor()]), "image"),
        (v1.Compose([v1.RandomCrop(32, 4), v1.RandAugment(), v1.ToTensor()]), "image"),
        (v2.Compose([v2.ToImage(), v2.CenterCrop(32), v2.RandAugment(), float32]), "tv_tensor"),
        (v2.Compose([v2.CenterCrop(32), v2.ToImage(), float32, v2.GaussianNoise()]), "tv_tensor"),
    ):
        assert compile_plan(transform).prefix.takes == takes
        loader = coordl.DataLoader(coordl.ImageFolder(folder, transform), 11, seed=0)
        images = [images for images, _ in loader]
        assert all(batch.shape == (11, 3, 32, 32) for batch in images)
        assert all(batch.dtype == torch.float32 for batch in images)
