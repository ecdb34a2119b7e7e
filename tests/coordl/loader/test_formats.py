"""A folder of JPEG, PNG and WebP is prepared natively, as a torch loader would prepare it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.utils.data
from PIL import Image
from recipe import STD, train_transform

import coordl
from coordl import ItemError, _native
from coordl import transforms as T
from coordl.fetch.folder import find_folder
from coordl.prep.plan import Plan, compile_plan
from coordl.prep.vision import prepare_image

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}

pytestmark = pytest.mark.skipif(
    _native.formats() != ["jpeg", "png", "webp"], reason="built without some formats"
)


@pytest.fixture
def mixed(folder: Path) -> Path:
    """The folder, its files in turn JPEG, PNG and WebP."""
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        kind = list(ENDINGS)[number % 3]
        if kind != "JPEG":
            with Image.open(path) as picture:
                picture.save(path.with_suffix(f".{ENDINGS[kind]}"), kind)
            path.unlink()
    return folder


def test_the_folder_is_native_by_its_names(mixed: Path) -> None:
    data = coordl.ImageFolder(mixed, train_transform())
    found = find_folder(data)
    assert not isinstance(found, str) and found.native_share() == 1
    plan = coordl.DataLoader(data).plan()
    assert "prep: one native pass, JPEG, PNG or WebP bytes -> pixels in the minibatch" in plan


def test_without_draws_it_gives_torchs_minibatches_within_one_level(mixed: Path) -> None:
    transform = T.Compose([T.Resize(64), T.CenterCrop(48), T.ToTensor()])
    data = coordl.ImageFolder(mixed, transform)
    batches = [
        list(kind(data, 5, shuffle=True, generator=torch.Generator().manual_seed(4)))
        for kind in (torch.utils.data.DataLoader, coordl.DataLoader)
    ]
    for (expected, labels), (images, ours) in zip(*batches, strict=True):
        assert torch.equal(labels, ours)
        assert (images - expected).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("cache", [None, "100%"])
def test_each_sample_is_within_one_level_of_pillow_on_its_draw(
    mixed: Path, cache: str | None
) -> None:
    data = coordl.ImageFolder(mixed, train_transform())
    loader = coordl.DataLoader(data, 5, seed=9, num_workers=2, cache=cache)
    level = (1 / 255 / np.asarray(STD, np.float32))[:, None, None]
    plan = compile_plan(data.transform)
    assert isinstance(plan, Plan)
    for epoch in range(2):
        images = torch.cat([batch[0] for batch in loader])
        for index, (path, _) in enumerate(data.samples):
            with Image.open(path) as picture:
                expected = prepare_image(picture, plan, 9, epoch, index)
            assert (np.abs(images[index].numpy() - expected) <= level * 1.01).all(), path


def test_names_decide_nothing_about_decoding(mixed: Path) -> None:
    data = coordl.ImageFolder(mixed, train_transform())
    before = torch.cat([images for images, _ in coordl.DataLoader(data, 5, seed=1)])
    for path in sorted(mixed.rglob("*.*")):
        path.rename(path.with_suffix(".jpeg"))
    renamed = coordl.ImageFolder(mixed, train_transform())
    after = torch.cat([images for images, _ in coordl.DataLoader(renamed, 5, seed=1)])
    assert torch.equal(before, after)


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_a_truncated_file_is_pillows_error_with_index_and_path(mixed: Path, ending: str) -> None:
    data = coordl.ImageFolder(mixed, train_transform())
    index = next(i for i, (path, _) in enumerate(data.samples) if path.endswith(ending))
    path = data.samples[index][0]
    Path(path).write_bytes(Path(path).read_bytes()[:-3000])
    batches = iter(coordl.DataLoader(data, 4, num_workers=1))
    with pytest.raises(ItemError, match=f"sample {index}") as caught:
        for _ in range(len(batches)):
            next(batches)
    assert (caught.value.index, caught.value.path) == (index, path)
    assert all(len(labels) for _, labels in batches)  # the pass goes on, and ends
