"""Image transforms under torchvision's names, with Pillow: usable in any DataLoader, and compiled
by coordl.DataLoader into one native pass.

Names, arguments and attributes are torchvision's, and so are the random numbers: with the same
`torch.manual_seed` the same crops, flips and colours come out. Only what the usual training recipes
of image folders need is here; anything else is torchvision's business.
"""

from __future__ import annotations

from coordl.transforms.colour import ColorJitter, Grayscale, RandomGrayscale
from coordl.transforms.container import Compose
from coordl.transforms.geometry import (
    CenterCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
)
from coordl.transforms.tensor import (
    ConvertImageDtype,
    Normalize,
    PILToTensor,
    RandomErasing,
    ToTensor,
)

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "ConvertImageDtype",
    "Grayscale",
    "Normalize",
    "PILToTensor",
    "RandomCrop",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "Resize",
    "ToTensor",
]
