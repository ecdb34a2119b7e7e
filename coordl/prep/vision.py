"""One sample with Pillow and NumPy: slow, plain, and what the native pass is held against.

It is also how items are prepared that the native pass leaves alone (TIFF, CMYK, damaged files).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from coordl.prep.draws import Draw, center_offset, choose_draw, shorter_edge_size

if TYPE_CHECKING:
    from PIL import Image

    from coordl.prep.plan import Plan


def prepare_image(
    image: Image.Image, plan: Plan, seed: int, epoch: int, index: int
) -> np.ndarray[Any, Any]:
    """Prepares one opened image with the draw that belongs to (seed, epoch, index).

    Returns:
        plan.stored_shape, C order, of the plan's pixel type; bfloat16 as its bits, uint16.

    Raises:
        OSError: Pillow cannot decode the file.
        ValueError: RandomCrop of an image that is too small, as torchvision raises it.
    """
    draw = choose_draw(plan, image.width, image.height, seed, epoch, index)
    return apply_draw(image, plan, draw)


def apply_draw(image: Image.Image, plan: Plan, draw: Draw) -> np.ndarray[Any, Any]:
    """Does to `image` what the plan says, with the given draw; see prepare_image."""
    from PIL import Image

    image = _framed(image.convert("RGB"), plan, draw)
    if draw.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if draw.vertical_flip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    levels = np.asarray(coloured(image, draw.colours)).transpose(2, 0, 1)
    return _stored(_valued(levels, plan, draw), plan)


def coloured(image: Image.Image, ops: tuple[tuple[str, float], ...]) -> Image.Image:
    """`image` after (brightness | contrast | saturation | grey, factor), first to last."""
    from PIL import Image, ImageEnhance

    for name, factor in ops:
        if name == "brightness":
            image = ImageEnhance.Brightness(image).enhance(factor)
        elif name == "contrast":
            image = ImageEnhance.Contrast(image).enhance(factor)
        elif name == "saturation":
            image = ImageEnhance.Color(image).enhance(factor)
        else:
            image = Image.merge("RGB", [image.convert("L")] * 3)
    return image


def _framed(image: Image.Image, plan: Plan, draw: Draw) -> Image.Image:
    from PIL import Image

    size = (plan.out_width, plan.out_height)
    resampling = Image.Resampling[plan.filter.upper()]
    if plan.geometry == "random_resized_crop":
        box = (draw.x, draw.y, draw.x + draw.width, draw.y + draw.height)
        return image.crop(box).resize(size, resampling)
    if plan.geometry == "resize":
        return image.resize(size, resampling)
    if plan.geometry in ("resize_center_crop", "resize_random_crop"):
        resized = shorter_edge_size(plan.resize_shorter, image.width, image.height)
        image = image.resize(resized, resampling)
    if plan.geometry in ("random_crop", "resize_random_crop"):
        return _padded_window(image, plan, draw)
    return center_crop(image, *size)


def _padded_window(image: Image.Image, plan: Plan, draw: Draw) -> Image.Image:
    """The box of the draw; what lies outside the image is padding, as numpy.pad makes it."""
    from PIL import Image

    left, top, right, bottom = plan.padding
    padded = image.width + left + right, image.height + top + bottom
    if not plan.pad_if_needed and (padded[0] < plan.out_width or padded[1] < plan.out_height):
        raise ValueError(
            f"RandomCrop of {plan.out_width} x {plan.out_height} px is larger than the image, "
            f"{padded[0]} x {padded[1]} px with its padding. Give pad_if_needed=True, or leave "
            "small images out."
        )
    x, y = draw.x, draw.y
    right, bottom = x + draw.width - image.width, y + draw.height - image.height
    around = [(max(0, -y), max(0, bottom)), (max(0, -x), max(0, right))]
    levels = np.asarray(image)
    if plan.pad_mode == "constant":
        planes = [np.pad(levels[:, :, c], around, constant_values=plan.fill[c]) for c in range(3)]
        levels = np.stack(planes, axis=2)
    else:
        levels = np.pad(levels, [*around, (0, 0)], mode=plan.pad_mode)
    x, y = max(0, x), max(0, y)
    return Image.fromarray(levels[y : y + draw.height, x : x + draw.width])


def _valued(levels: np.ndarray, plan: Plan, draw: Draw) -> np.ndarray:
    """(3, H, W): uint8 levels or float32 values, normalised and erased."""
    values = np.array(levels)
    if plan.pixel != "uint8":
        values = values.astype(np.float32) / np.float32(255)
        if plan.mean is not None and plan.std is not None:
            mean = np.asarray(plan.mean, dtype=np.float32)[:, None, None]
            std = np.asarray(plan.std, dtype=np.float32)[:, None, None]
            values = (values - mean) / std
    x, y, width, height = draw.erase
    if plan.erase is not None and width and height:
        value = np.asarray(plan.erase.value).astype(values.dtype)
        values[:, y : y + height, x : x + width] = value[:, None, None]
    return values


def _stored(values: np.ndarray, plan: Plan) -> np.ndarray:
    if plan.layout == "hwc":
        values = values.transpose(1, 2, 0)
    values = np.ascontiguousarray(values)
    if plan.pixel == "float16":
        return values.astype(np.float16)
    if plan.pixel == "bfloat16":
        return torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    return values


def center_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of an image; one smaller than that is padded with black, as torchvision does."""
    if image.width < width or image.height < height:
        from PIL import ImageOps

        left, top = _center_padding(image, width, height)
        right = max(0, (width - image.width + 1) // 2)
        bottom = max(0, (height - image.height + 1) // 2)
        image = ImageOps.expand(image, (left, top, right, bottom))
    x, y = center_offset(image.width, width), center_offset(image.height, height)
    return image.crop((x, y, x + width, y + height))


def _center_padding(image: Image.Image, width: int, height: int) -> tuple[int, int]:
    """(left, top) of what center_crop() adds."""
    return max(0, (width - image.width) // 2), max(0, (height - image.height) // 2)


def center_shift(image: Image.Image, width: int, height: int) -> tuple[int, int]:
    """By how much center_crop() moves the pixels, (right, down)."""
    left, top = _center_padding(image, width, height)
    x = center_offset(max(image.width, width), width)
    y = center_offset(max(image.height, height), height)
    return left - x, top - y
