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


def filter_of(library, name: str):
    modes = getattr(library, "InterpolationMode", None)
    return name if modes is None else modes(name)


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
        library.Compose(
            [
                library.RandomResizedCrop(90, interpolation=filter_of(library, "bicubic")),
                library.RandomVerticalFlip(),
                library.ColorJitter(0.4, 0.4, 0.4, 0.1),
                library.RandomGrayscale(0.5),
                library.PILToTensor(),
                library.ConvertImageDtype(torch.float32),
                library.RandomErasing(value=(0.1, 0.2, 0.3)),
            ]
        ),
        library.Compose([library.ColorJitter((0.5, 1.5), 0, [0, 2]), library.Grayscale(3)]),
        library.Compose([library.Resize(80, filter_of(library, "nearest")), library.Grayscale()]),
        library.RandomCrop(100, padding=(3, 60), fill=(1, 2, 3)),
        library.RandomCrop((500, 30), padding=2, pad_if_needed=True, padding_mode="reflect"),
        library.RandomCrop((50, 700), padding=[1, 2, 3, 4], pad_if_needed=True, fill=7),
        library.Compose([library.ToTensor(), library.RandomErasing(1.0, value="random")]),
        library.Compose([library.PILToTensor(), library.ConvertImageDtype(torch.float16)]),
    ]


def test_results_and_random_numbers_are_torchvisions(torchvision, photos):
    for mine, real in zip(recipes(transforms), recipes(torchvision.transforms), strict=True):
        for seed, photo in enumerate(photos * 3):
            image = Image.open(photo).convert("RGB")
            torch.manual_seed(seed)
            a = np.asarray(mine(image))
            state = torch.get_rng_state()
            torch.manual_seed(seed)
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
        (lambda: transforms.Resize(8, interpolation="lanczos"), "interpolation is one of"),
        (lambda: transforms.RandomCrop(8, padding=(1, 2, 3)), "1, 2 or 4 numbers"),
        (lambda: transforms.RandomCrop(8, padding_mode="wrap"), "padding_mode is one of"),
        (lambda: transforms.ColorJitter(-1), "brightness as a single number must not be"),
        (lambda: transforms.ColorJitter(hue=0.6), "hue must lie between"),
        (lambda: transforms.Grayscale(2), "1 or 3, got 2"),
        (lambda: transforms.RandomErasing(scale=(0.5, 2)), "scale must be"),
        (lambda: transforms.RandomErasing(value="noise"), "'random', got 'noise'"),
        (lambda: transforms.ConvertImageDtype(torch.uint8), "a float type"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_tensor_where_an_image_belongs_is_named():
    with pytest.raises(TypeError, match="expected a Pillow image, got Tensor"):
        transforms.CenterCrop(8)(torch.zeros(3, 9, 9))
    with pytest.raises(TypeError, match="RandomErasing takes a tensor"):
        transforms.RandomErasing()(Image.new("RGB", (2, 2)))
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
