"""Pillow: the reference, and the recipe of torchvision's ImageFolder that most people train with.

Settings: `Stock` is the documented ImageNet recipe (RandomResizedCrop, RandomHorizontalFlip,
ToTensor, Normalize of torchvision.transforms); only the random numbers are ours. `Direct` is what
Pillow itself takes: open, crop, resize, and NumPy's normalisation into a reused buffer.
Pitfalls: `Image.resize(box=...)` reads a little beyond the box, so the crop comes first;
`Image.draft` would decode at half size, faster and with other pixels: not used. Pillow-SIMD takes
the place of Pillow: it lies in a folder of its own, which only its worker puts on its path.
"""

from __future__ import annotations

import io
from typing import ClassVar

import numpy as np
import PIL
import PIL.features
from PIL import Image

from .boxes import Box
from .variant import MEAN, SIZE, STD, IntoBatch, LeftOut, Picture, Variant


def reference(picture: Picture, box: Box) -> np.ndarray:
    """(224, 224, 3) uint8: Pillow's crop, antialiased bilinear resize and flip."""
    image = Image.open(io.BytesIO(picture.item)).convert("RGB")
    image = image.crop((box.x, box.y, box.x + box.width, box.y + box.height))
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image)[:, ::-1] if box.flip else np.asarray(image)


class Direct(IntoBatch):
    """Crop and resize of Pillow."""

    settings = "convert, crop, resize (bilinear, antialiased); NumPy normalises into a reused batch"

    def one(self, index: int, box: Box) -> np.ndarray:
        """Pillow does all but the normalisation."""
        image = Image.open(io.BytesIO(self.pictures[index].item)).convert("RGB")
        image = image.crop((box.x, box.y, box.x + box.width, box.y + box.height))
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return self.normalise(np.asarray(image), box.flip)

    def versions(self) -> dict[str, str]:
        """Of what is imported as PIL."""
        return {"Pillow": PIL.__version__}


class Simd(Direct):
    """The same calls where Pillow-SIMD is what is imported."""

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        if ".post" not in PIL.__version__:  # how Pillow-SIMD tells itself apart
            raise LeftOut(f"Pillow {PIL.__version__} is in the place of Pillow-SIMD")

    def versions(self) -> dict[str, str]:
        """As `Direct`, under its own name."""
        return {"Pillow-SIMD": PIL.__version__}


class Stock(Variant):
    """torchvision.transforms on a Pillow image, as its ImageNet example has it."""

    settings = "RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize in a Compose"
    packages: ClassVar = ("pillow", "torchvision", "torch")

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        from .stubs import import_torchvision

        import_torchvision()
        from torchvision import transforms

        class GivenCrop(transforms.RandomResizedCrop):
            box = (0, 0, 0, 0)

            def get_params(self, *_) -> tuple[int, int, int, int]:
                return self.box

        self.crop = GivenCrop(SIZE)
        self.flip = transforms.RandomHorizontalFlip()
        self.transform = transforms.Compose(
            [self.crop, self.flip, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )

    def one(self, index: int, box: Box) -> np.ndarray:
        """A fresh tensor, as torchvision gives it."""
        self.crop.box = (box.y, box.x, box.height, box.width)
        self.flip.p = float(box.flip)
        image = Image.open(io.BytesIO(self.pictures[index].item)).convert("RGB")
        return self.transform(image).numpy()


class FullDecode(Variant):
    """Pillow's decoding of the whole picture, libjpeg-turbo inside, and nothing else."""

    settings = "Image.open, load"

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        if not PIL.features.check("libjpeg_turbo"):
            raise LeftOut("this Pillow has no libjpeg-turbo")

    def one(self, index: int, box: Box) -> np.ndarray:
        """No sample: the time is what is asked for."""
        Image.open(io.BytesIO(self.pictures[index].item)).load()
        return np.empty(0)

    def versions(self) -> dict[str, str]:
        """Of libjpeg-turbo, as Pillow tells it."""
        return {"libjpeg-turbo": str(PIL.features.version("libjpeg_turbo"))}
