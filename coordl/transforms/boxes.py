"""Boxes that follow the pixels: what a transform does to an image, done to boxes in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Move(NamedTuple):
    """Where a transform brings a point: x to x * scale_x + shift_x, likewise y; in pixels."""

    scale_x: float = 1.0
    shift_x: float = 0.0
    scale_y: float = 1.0
    shift_y: float = 0.0


class Moved(NamedTuple):
    """Boxes after some transforms.

    Attributes:
        boxes: (N, 4) float64: left, top, right, bottom in pixels, within the image.
        seen: (N,) float64, share of each box's area that no crop has cut off.
        zoom: pixels in the result for each pixel of the image before.
    """

    boxes: NDArray[np.float64]
    seen: NDArray[np.float64]
    zoom: float


def flat_steps(transform: Any) -> list[Any]:
    """The single transforms of `transform`, which must all be of coordl.transforms.

    Raises:
        TypeError: one is not: nobody knows where it moves pixels.
    """
    if type(transform).__module__ == "coordl.transforms.container":
        return [step for inner in transform.transforms for step in flat_steps(inner)]
    if not type(transform).__module__.startswith("coordl.transforms."):
        raise TypeError(
            f"{type(transform).__qualname__} is none of coordl.transforms, so nobody can say where "
            "it moves boxes. Give what takes (image, target) as transforms=."
        )
    return [transform]


def transformed(steps: list[Any], image: Any, boxes: NDArray[np.floating]) -> tuple[Any, Moved]:
    """The image after all steps, and its boxes, clipped to the image after each.

    Args:
        steps: as flat_steps() gives them.
        image: Pillow image. boxes: (N, 4), in its pixels.
    """
    now = Moved(boxes.astype(np.float64), np.ones(len(boxes)), 1.0)
    for step in steps:
        if not hasattr(step, "moved"):  # colours, tensors: no pixel changes its place
            image = step(image)
            continue
        image, move = step.moved(image)
        now = _moved(now, move, image.width, image.height)  # a crop at (0, 0) clips as well
    return image, now


def _moved(before: Moved, move: Move, width: int, height: int) -> Moved:
    scale = np.array([move.scale_x, move.scale_y] * 2)
    corners = before.boxes * scale + np.array([move.shift_x, move.shift_y] * 2)
    corners = corners.reshape(-1, 2, 2)
    whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = np.clip(whole, 0, np.array([width, height] * 2))
    area = box_areas(whole)
    share = np.divide(box_areas(boxes), area, out=np.zeros_like(area), where=area > 0)
    return Moved(boxes, before.seen * share, before.zoom * abs(move.scale_x * move.scale_y))


def box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,), in square pixels."""
    sides: NDArray[np.float64] = boxes[:, 2:] - boxes[:, :2]
    areas: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return areas
