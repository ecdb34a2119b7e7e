"""torchvision's v2 transforms, on tensors and on Pillow images.

Settings: on tensors, torchvision.io.decode_jpeg decodes; the resize is antialiased; torch uses one
thread. `Written` is the recipe of its documentation in a Compose. `Reused` crops, resizes as uint8
and normalises in place into a reused batch, which spares fresh memory.
Pitfalls: the PyPI wheel is built for CUDA: .venv-peers has empty libraries in place of CUDA's
(stubs.py); without them only v2 on Pillow images runs. v2 draws by `make_params`: given the box
there, the rest is untouched.
"""

from __future__ import annotations

import io
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from .boxes import Box
from .stubs import import_torchvision
from .variant import BIAS, GAIN, MEAN, SIZE, STD, Picture, Variant

BATCH_GAIN = torch.from_numpy(GAIN)[:, None, None]
BATCH_BIAS = torch.from_numpy(BIAS)[:, None, None]


def normalise_into(out: torch.Tensor, levels: torch.Tensor, flip: bool) -> np.ndarray:
    """(3, 224, 224) uint8 -> float32 in `out`, mirrored where asked."""
    out.copy_(levels.flip(-1) if flip else levels)
    return out.mul_(BATCH_GAIN).add_(BATCH_BIAS).numpy()


def resize(levels: torch.Tensor, box: Box) -> torch.Tensor:
    """The box of a (3, H, W) uint8 tensor at 224x224, antialiased; torchvision's kernel."""
    part = levels[:, box.y : box.y + box.height, box.x : box.x + box.width]
    return torch.nn.functional.interpolate(
        part[None], size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True
    )[0]


class _Compose(Variant):
    packages: ClassVar = ("torchvision", "torch")

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        import_torchvision()
        from torchvision.transforms import v2

        class GivenCrop(v2.RandomResizedCrop):
            box: ClassVar[dict[str, int]] = {}

            def make_params(self, flat_inputs) -> dict[str, int]:
                return self.box

        self.crop = GivenCrop(SIZE, antialias=True)
        self.flip = v2.RandomHorizontalFlip()
        self.transform = v2.Compose(
            [
                self.crop,
                self.flip,
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def transformed(self, picture: object, box: Box) -> np.ndarray:
        """A fresh tensor, as v2 gives it."""
        self.crop.box = {"top": box.y, "left": box.x, "height": box.height, "width": box.width}
        self.flip.p = float(box.flip)
        return self.transform(picture).numpy()


class OnPillow(_Compose):
    """v2 on a Pillow image, its transforms made for both."""

    settings = "RandomResizedCrop, RandomHorizontalFlip, ToImage, ToDtype, Normalize in a Compose"

    def one(self, index: int, box: Box) -> np.ndarray:
        """Pillow decodes and resizes."""
        image = Image.open(io.BytesIO(self.pictures[index].item)).convert("RGB")
        return self.transformed(image, box)


def _decoder():
    import_torchvision()
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(item: torch.Tensor) -> torch.Tensor:
        return decode_jpeg(item, mode=ImageReadMode.RGB)

    return decode


class Written(_Compose):
    """v2 on tensors, as its documentation has it."""

    settings = "io.decode_jpeg, then the Compose of v2; fresh tensors"

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        self.decode = _decoder()
        self.items = [torch.frombuffer(bytearray(p.item), dtype=torch.uint8) for p in pictures]

    def one(self, index: int, box: Box) -> np.ndarray:
        """Everything on tensors."""
        return self.transformed(self.decode(self.items[index]), box)


class Reused(Variant):
    """v2's kernels on tensors, the batch reused."""

    settings = "io.decode_jpeg, crop, antialiased resize as uint8, normalised into a reused batch"
    packages: ClassVar = ("torchvision", "torch")

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        self.decode = _decoder()
        self.items = [torch.frombuffer(bytearray(p.item), dtype=torch.uint8) for p in pictures]
        self.out = torch.zeros(3, SIZE, SIZE)

    def one(self, index: int, box: Box) -> np.ndarray:
        """The kernels that v2's functions call, without their dispatch."""
        return normalise_into(self.out, resize(self.decode(self.items[index]), box), box.flip)
