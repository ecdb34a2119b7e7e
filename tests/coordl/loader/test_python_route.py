"""What a user's own functions see where samples are made in Python, or beside the native pass."""

from __future__ import annotations

import os
import random

import torch
from torch.utils.data import get_worker_info

from coordl import DataLoader, ImageFolder, transforms

SEEN = "seen"


def note_the_dataset(worker: int) -> None:
    info = get_worker_info()
    info.dataset.samples  # noqa: B018 - AttributeError unless it is the user's own
    os.environ[SEEN] = type(info.dataset).__name__


def jitter(target: int) -> float:
    return target + random.random()


def same_size(image):
    return transforms.ToTensor()(image.resize((16, 16)))


def brightness(image):
    """Not recognised, so that Python makes the samples."""
    return same_size(image)


def test_worker_init_fn_finds_the_users_own_data_set(folder):
    loader = DataLoader(
        ImageFolder(folder, brightness),
        batch_size=4,
        num_workers=1,
        worker_init_fn=note_the_dataset,
        seed=1,
        cache="50%",
    )

    assert sum(len(labels) for _, labels in loader) == len(loader.dataset)


def test_a_random_target_transform_is_keyed_like_the_crop(folder):
    recipe = transforms.Compose([transforms.RandomResizedCrop(32), transforms.ToTensor()])

    def labels(noise: int) -> torch.Tensor:
        data = ImageFolder(folder, recipe, target_transform=jitter)
        loader = DataLoader(data, batch_size=4, seed=5, num_workers=2, prep="native")
        random.seed(noise)
        found = torch.cat([batch[1] for batch in loader])
        assert random.random() == random.Random(noise).random(), "the script's draws were disturbed"
        return found

    assert torch.equal(labels(1), labels(2))


def test_persistent_workers_see_a_file_changed_between_epochs(folder):
    data = ImageFolder(folder, brightness)
    loader = DataLoader(
        data, batch_size=4, num_workers=1, persistent_workers=True, cache="100%", seed=1
    )
    before = torch.cat([images for images, _ in loader])
    from PIL import Image

    path = data.samples[0][0]
    Image.new("RGB", (64, 64), (255, 255, 255)).save(path)
    os.utime(path, (1e9, 1e9))
    after = torch.cat([images for images, _ in loader])

    assert after[0].min() > 0.9
    assert not torch.equal(before[0], after[0])
