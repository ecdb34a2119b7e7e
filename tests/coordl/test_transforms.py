"""Transforms under torchvision's names do what torchvision's do, in any DataLoader."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from coordl import transforms

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def recipes(library) -> list:
    return [
        library.Compose(
            [
                library.RandomResizedCrop(112),
                library.RandomHorizontalFlip(),
                library.ToTensor(),
                library.Normalize(MEAN, STD),
            ]
        ),
        library.Compose([library.Resize(200), library.CenterCrop(180), library.ToTensor()]),
        library.Compose([library.Resize((50, 70)), library.CenterCrop((61, 33))]),
        library.Compose([library.CenterCrop(600), library.ToTensor()]),
    ]


def test_results_and_random_numbers_are_torchvisions(torchvision, photos):
    for mine, real in zip(recipes(transforms), recipes(torchvision.transforms), strict=True):
        for photo in photos:
            image = Image.open(photo).convert("RGB")
            torch.manual_seed(4)
            a = np.asarray(mine(image))
            state = torch.get_rng_state()
            torch.manual_seed(4)
            assert np.array_equal(a, np.asarray(real(image)))
            assert torch.equal(state, torch.get_rng_state())


class Photos(Dataset):
    def __init__(self, paths):
        self.paths = paths
        self.transform = recipes(transforms)[0]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def test_they_work_in_a_stock_dataloader_with_workers(photos):
    (batch,) = DataLoader(Photos(photos), batch_size=4, num_workers=1)
    assert batch.shape == (4, 3, 112, 112) and batch.dtype == torch.float32


def test_to_tensor_scales_levels_to_one(photos):
    image = Image.open(photos[0])
    tensor = transforms.ToTensor()(image)
    assert torch.equal(
        (tensor * 255).round().to(torch.uint8).permute(1, 2, 0), torch.from_numpy(np.array(image))
    )
    assert transforms.ToTensor()(image.convert("L")).shape == (1, 512, 512)


def test_normalize_leaves_its_argument_alone_unless_told():
    tensor = torch.ones(3, 2, 2)
    result = transforms.Normalize([0.5] * 3, [0.25] * 3)(tensor)
    assert result.eq(2).all() and tensor.eq(1).all()
    assert transforms.Normalize([0.5] * 3, [0.25] * 3, inplace=True)(tensor) is tensor


def test_transforms_pickle_and_show_themselves():
    recipe = recipes(transforms)[0]
    assert repr(pickle.loads(pickle.dumps(recipe))) == repr(recipe)
    assert "RandomResizedCrop(size=(112, 112), scale=(0.08, 1.0), ratio=(0.75, 1.3333))" in repr(
        recipe
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.RandomResizedCrop(0), "size must be a positive int"),
        (lambda: transforms.CenterCrop((1, 2, 3)), "size must be a positive int"),
        (lambda: transforms.Resize(2.5), "size must be"),
        (lambda: transforms.RandomResizedCrop(8, scale=(1.0, 0.1)), "scale must be"),
        (lambda: transforms.RandomHorizontalFlip(2), "probability"),
        (lambda: transforms.Normalize([0.5], [0.5, 0.5]), "mean has 1 channels, std 2"),
        (lambda: transforms.Normalize([0.5], [0]), "std must not hold 0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_tensor_where_an_image_belongs_is_named():
    with pytest.raises(TypeError, match="expected a Pillow image, got Tensor"):
        transforms.CenterCrop(8)(torch.zeros(3, 9, 9))
    with pytest.raises(TypeError, match=r"float tensor, got torch\.uint8: put ToTensor"):
        transforms.Normalize([0.5], [0.5])(torch.zeros(1, 2, 2, dtype=torch.uint8))


def test_without_pillow_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from coordl import transforms\n"
        "transforms.CenterCrop(8)(None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'data-stall-toolkit[images]'" in done.stderr
