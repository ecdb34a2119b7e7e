"""COCO's annotation files (instances_*.json) as arrays: images, and the boxes in them."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Annotations:
    """What a file says of N images with B boxes; arrays read-only by convention.

    Attributes:
        names: N paths of the images below their folder, in order of image id.
        image_ids: (N,) int64.
        firsts: (N + 1,) int64, the first box of each image; the last is B.
        boxes: (B, 4) float32: left, top, right, bottom in pixels.
        labels: (B,) int64, category ids. areas: (B,) float32. crowds: (B,) int64, 0 or 1.
        categories: names by id.
    """

    names: list[str]
    image_ids: NDArray[np.int64]
    firsts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    crowds: NDArray[np.int64]
    categories: dict[int, str]


def read_annotations(path: str | os.PathLike[str]) -> Annotations:
    """Boxes of an image come in the file's order.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no COCO file, or contradicts itself; names file and entry.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        try:
            content = json.loads(file.read())
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from None
    try:
        return _arrays(content)
    except _Wrong as error:
        raise ValueError(f"{path}: {error}") from None


class _Wrong(Exception):
    """What is wrong with a file."""


def _arrays(content: Any) -> Annotations:
    images = sorted(_entries(content, "images"), key=lambda image: _number(image, "images", "id"))
    ids = [_number(image, "images", "id") for image in images]
    rows = {id: row for row, id in enumerate(ids)}
    if len(rows) < len(ids):
        twice = next(a for a, b in itertools.pairwise(ids) if a == b)
        raise _Wrong(f"two images have the id {twice}")
    categories = {
        _number(entry, "categories", "id"): _name(entry, "categories", "name")
        for entry in _entries(content, "categories")
    }
    entries = _entries(content, "annotations")
    owners = np.empty(len(entries), np.int64)
    boxes = np.empty((len(entries), 4), np.float32)
    labels = np.empty(len(entries), np.int64)
    areas = np.empty(len(entries), np.float32)
    crowds = np.zeros(len(entries), np.int64)
    for place, entry in enumerate(entries):
        owner = rows.get(_number(entry, "annotations", "image_id"))
        label = _number(entry, "annotations", "category_id")
        if owner is None:
            raise _Wrong(f"{_which(entry)} is of image {entry['image_id']}, which is not listed")
        if label not in categories:
            raise _Wrong(f"{_which(entry)} has the category {label}, which is not listed")
        x, y, width, height = _box(entry)
        owners[place], labels[place] = owner, label
        boxes[place] = x, y, x + width, y + height
        area = entry.get("area")
        areas[place] = area if _is_measure(area) else width * height
        crowds[place] = bool(entry.get("iscrowd", 0))
    order = np.argsort(owners, kind="stable")
    firsts = np.searchsorted(owners[order], np.arange(len(images) + 1))
    return Annotations(
        [_name(image, "images", "file_name") for image in images],
        np.array(ids, np.int64),
        firsts.astype(np.int64),
        boxes[order],
        labels[order],
        areas[order],
        crowds[order],
        categories,
    )


def _entries(content: Any, name: str) -> list[Any]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _Wrong(
            f"it has no list of {name}. COCO's instances_*.json have images, annotations and "
            "categories."
        )
    return entries


def _number(entry: dict[str, Any], where: str, name: str) -> int:
    value = entry.get(name)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise _Wrong(f"an entry of {where} has no whole number as its {name}: {_short(entry)}")
    return value


def _name(entry: dict[str, Any], where: str, name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise _Wrong(f"an entry of {where} has no {name}: {_short(entry)}")
    return value


def _box(entry: dict[str, Any]) -> tuple[float, float, float, float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_measure, box)):
        raise _Wrong(f"{_which(entry)} has no box [x, y, width, height]: {_short(entry)}")
    x, y, width, height = box
    if width < 0 or height < 0:
        raise _Wrong(f"{_which(entry)} has a box of negative size: {box}")
    return x, y, width, height


def _is_measure(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e12


def _which(entry: dict[str, Any]) -> str:
    return f"annotation {entry.get('id')}"


def _short(entry: dict[str, Any]) -> str:
    said = json.dumps(entry)
    return said if len(said) <= 120 else said[:120] + "..."
