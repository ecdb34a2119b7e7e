"""One sample with Pillow and NumPy: slow, plain, and what the native pass is held against.

It is also how items are prepared that the native pass leaves alone (TIFF, CMYK, damaged files).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from coordl.prep.draws import Draw, center_offset, choose_draw

if TYPE_CHECKING:
    from PIL import Image

    from coordl.prep.plan import Plan


def prepare_image(
    image: Image.Image, plan: Plan, seed: int, epoch: int, index: int
) -> np.ndarray[Any, Any]:
    """Prepares one opened image with the draw that belongs to (seed, epoch, index).

    Returns:
        (3, out_height, out_width), C order, float32 or uint8 as the plan says.

    Raises:
        OSError: Pillow cannot decode the file.
    """
    draw = choose_draw(plan, image.width, image.height, seed, epoch, index)
    return apply_draw(image, plan, draw)


def apply_draw(image: Image.Image, plan: Plan, draw: Draw) -> np.ndarray[Any, Any]:
    """Does to `image` what the plan says, with the given box and flip; see prepare_image."""
    from PIL import Image

    image = image.convert("RGB")
    out_size = (plan.out_width, plan.out_height)
    if plan.geometry == "random_resized_crop":
        box = (draw.x, draw.y, draw.x + draw.width, draw.y + draw.height)
        image = image.crop(box).resize(out_size, Image.Resampling.BILINEAR)
    elif plan.geometry == "resize":
        image = image.resize(out_size, Image.Resampling.BILINEAR)
    elif plan.geometry == "resize_center_crop":
        resized = shorter_edge_size(plan.resize_shorter, image.width, image.height)
        image = center_crop(image.resize(resized, Image.Resampling.BILINEAR), *out_size)
    else:
        image = center_crop(image, *out_size)
    if draw.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    levels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    if plan.pixel == "uint8":
        return levels
    values = levels.astype(np.float32) / np.float32(255)
    if plan.mean is None or plan.std is None:
        return values
    mean = np.asarray(plan.mean, dtype=np.float32)[:, None, None]
    std = np.asarray(plan.std, dtype=np.float32)[:, None, None]
    return (values - mean) / std


def shorter_edge_size(shorter: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) after torchvision's Resize(shorter)."""
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def center_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of an image; one smaller than that is padded with black, as torchvision does."""
    if image.width < width or image.height < height:
        from PIL import ImageOps

        left, top = max(0, (width - image.width) // 2), max(0, (height - image.height) // 2)
        right = max(0, (width - image.width + 1) // 2)
        bottom = max(0, (height - image.height + 1) // 2)
        image = ImageOps.expand(image, (left, top, right, bottom))
    x, y = center_offset(image.width, width), center_offset(image.height, height)
    return image.crop((x, y, x + width, y + height))
