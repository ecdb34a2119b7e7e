"""Pictures and the boxes in them, of a COCO file; boxes follow crops, resizes and mirrors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray

from coordl.errors import item_error
from coordl.sources.coco_file import read_annotations
from coordl.sources.image_folder import open_item, open_rgb
from coordl.transforms.boxes import flat_steps, transformed


class CocoDetection(torch.utils.data.Dataset):
    """Pictures with boxes, as (picture, target), in order of image id.

    A target is a dict of tensors: boxes (B, 4) float32, left, top, right, bottom in pixels of the
    picture; labels (B,) int64, category ids as in the file; area (B,) float32; iscrowd (B,) int64;
    image_id () int64. Pictures without boxes have B = 0. Masks and keypoints are not loaded.

    With `transform`, boxes go where the pixels go. They are clipped to the picture after each step,
    and a box is dropped when less than `min_size` pixels of its width or height, or less than
    `min_visible` of its area, are left; labels and iscrowd go with it. `area` is scaled like the
    picture, times the share of the box that is left.

    Args:
        root: folder of the pictures.
        annotations: COCO's instances_*.json.
        transform: of coordl.transforms, Compose or one: from PIL image (RGB) to what the model
            takes.
        target_transform: of targets, at the end.
        transforms: instead of `transform`, a function of your own (torchvision's v2, say) from
            (picture, target) to both.
        min_size: in pixels, of the result. min_visible: share in [0, 1].

    Raises:
        OSError, ValueError: the annotations cannot be read or contradict themselves; names file
            and entry.
        TypeError: a step of `transform` is none of coordl.transforms.

    Attributes:
        samples: (path, image id). annotations: of all. categories: names by id.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        transform: Any = None,
        target_transform: Callable[[dict[str, torch.Tensor]], Any] | None = None,
        *,
        transforms: Callable[[Any, dict[str, torch.Tensor]], tuple[Any, Any]] | None = None,
        min_size: float = 1.0,
        min_visible: float = 0.0,
    ) -> None:
        if transform is not None and transforms is not None:
            raise ValueError("give transform= (of coordl.transforms) or transforms=, not both")
        if min_size < 0 or not 0 <= min_visible <= 1:
            raise ValueError(
                f"min_size={min_size!r} is in pixels, min_visible={min_visible!r} a share in [0, 1]"
            )
        if transform is not None:
            flat_steps(transform)  # a wrong one is told now
        self.root = os.fspath(root)
        self.transform = transform
        self.transforms = transforms
        self.target_transform = target_transform
        self.min_size, self.min_visible = min_size, min_visible
        self.annotations = read_annotations(annotations)
        self.categories = self.annotations.categories
        self.samples = [
            (os.path.join(self.root, name), id)
            for name, id in zip(
                self.annotations.names, self.annotations.image_ids.tolist(), strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """(picture, target), transformed. Errors name index and path."""
        return self.sample(range(len(self))[index], int(index))

    def sample(
        self, row: int, index: int, read: Callable[[int], bytes | memoryview] | None = None
    ) -> tuple[Any, Any]:
        """Sample `row`, called `index` in errors; its file's bytes from `read`, if given."""
        path, _ = self.samples[row]
        try:
            picture = open_rgb(path) if read is None else open_item(read(row))
        except Exception as error:
            raise item_error(error, index, path) from error
        picture, target = self._transformed(picture, row)
        if self.transforms is not None:
            picture, target = self.transforms(picture, target)
        return picture, target if self.target_transform is None else self.target_transform(target)

    def _transformed(self, picture: Any, row: int) -> tuple[Any, dict[str, torch.Tensor]]:
        found = self.annotations
        here = slice(found.firsts[row], found.firsts[row + 1])
        boxes: NDArray[np.floating] = found.boxes[here]
        labels, crowds = found.labels[here], found.crowds[here]
        areas: NDArray[np.floating] = found.areas[here]
        if self.transform is not None:
            picture, moved = transformed(flat_steps(self.transform), picture, boxes)
            sides = moved.boxes[:, 2:] - moved.boxes[:, :2]
            seen = moved.seen
            kept = (sides >= self.min_size).all(axis=1) & (seen > 0) & (seen >= self.min_visible)
            boxes, labels, crowds = moved.boxes[kept], labels[kept], crowds[kept]
            areas = (areas * moved.zoom * seen)[kept]
        return picture, {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels),
            "area": torch.tensor(areas, dtype=torch.float32),
            "iscrowd": torch.tensor(crowds),
            "image_id": torch.tensor(int(found.image_ids[row])),
        }

    def __repr__(self) -> str:
        boxes = len(self.annotations.labels)
        return f"coordl.CocoDetection({self.root!r}: {len(self)} pictures, {boxes} boxes)"


def collate_detections(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, list[Any]]:
    """A minibatch of samples whose targets differ in size: (pictures, list of targets).

    Pictures that are tensors of one shape are stacked, (N, ...); others stay a list.
    """
    pictures = [picture for picture, _ in samples]
    targets = [target for _, target in samples]
    tensors = all(isinstance(picture, torch.Tensor) for picture in pictures)
    if tensors and len({picture.shape for picture in pictures}) == 1:
        return torch.utils.data.default_collate(pictures), targets
    return pictures, targets
