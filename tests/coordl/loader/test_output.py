"""Minibatches in the type and memory format that were asked for, natively and from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from coordl import DataLoader, ImageFolder
from coordl import transforms as T

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def recipe(*more: Any) -> T.Compose:
    return T.Compose([T.RandomResizedCrop((40, 32)), T.RandomHorizontalFlip(), *more])


def half(dtype: torch.dtype) -> list[Any]:
    return [T.PILToTensor(), T.ConvertImageDtype(dtype), T.Normalize(MEAN, STD)]


def batches(folder: Path, transform: Any, **options: Any) -> list[Any]:
    data = ImageFolder(folder, transform)
    return list(DataLoader(data, batch_size=5, seed=3, **options))


@pytest.mark.parametrize("prep", ["native", "python"])
@pytest.mark.parametrize("workers", [0, 1])
def test_channels_last_holds_the_same_images_with_those_strides(
    folder: Path, prep: str, workers: int
) -> None:
    transform = recipe(T.ToTensor(), T.Normalize(MEAN, STD))
    plain = batches(folder, transform, prep=prep, num_workers=workers)
    last = batches(
        folder, transform, prep=prep, num_workers=workers, memory_format=torch.channels_last
    )
    for (a, labels), (b, same_labels) in zip(plain, last, strict=True):
        assert b.shape[1:] == (3, 40, 32) and b.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(a, b, atol=1e-6) and torch.equal(labels, same_labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [None, torch.channels_last])
def test_halves_are_the_floats_rounded(folder: Path, dtype: torch.dtype, memory_format) -> None:
    halves = batches(folder, recipe(*half(dtype)), prep="native", memory_format=memory_format)
    floats = batches(folder, recipe(*half(torch.float32)), prep="native")
    for (a, _), (b, _) in zip(halves, floats, strict=True):
        assert a.dtype is dtype and torch.allclose(a.float(), b, rtol=8e-3, atol=1e-6)


def test_other_formats_among_jpegs_come_in_the_same_form(folder: Path) -> None:
    picture = sorted(folder.rglob("*.jpg"))[0]
    Image.open(picture).save(picture.with_suffix(".png"))
    picture.unlink()
    transform = recipe(T.ColorJitter(0.3), T.RandomVerticalFlip(), *half(torch.bfloat16))
    options: dict[str, Any] = {"memory_format": torch.channels_last, "prep": "native"}
    images = torch.cat([images for images, _ in batches(folder, transform, **options)])
    assert images.dtype is torch.bfloat16 and images[:, 0].float().std(dim=(1, 2)).min() > 0


def test_every_recognised_recipe_gives_the_same_with_any_number_of_workers(folder: Path) -> None:
    transform = T.Compose(
        [
            T.RandomCrop(64, padding=8, padding_mode="reflect"),
            T.ColorJitter(0.4, 0.4, 0.4),
            T.RandomGrayscale(0.3),
            T.ToTensor(),
            T.RandomErasing(0.5),
        ]
    )
    one, two = (batches(folder, transform, num_workers=n, prep="native") for n in (0, 2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, two, strict=True))


def test_the_format_is_an_attribute_and_part_of_the_plan(folder: Path) -> None:
    data = ImageFolder(folder, recipe(*half(torch.float16)))
    loader = DataLoader(data, batch_size=5, memory_format=torch.channels_last)
    assert loader.memory_format is torch.channels_last
    assert "-> float16 (3, 40, 32) channels_last" in loader.plan()


def test_formats_that_cannot_be_are_refused(folder: Path) -> None:
    data = ImageFolder(folder, recipe(T.ToTensor()))
    with pytest.raises(ValueError, match=r"channels_last, torch\.contiguous_format or None"):
        DataLoader(data, memory_format=torch.channels_last_3d)
    with pytest.raises(ValueError, match="batch_size=None makes none"):
        DataLoader(data, batch_size=None, memory_format=torch.channels_last)
