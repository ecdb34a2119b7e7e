"""Pictures as a list names them, with whatever target each has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch.utils.data

from coordl.errors import item_error
from coordl.fetch.objects import Objects
from coordl.fetch.place import Place, is_url
from coordl.fetch.texts import Texts
from coordl.sources.image_folder import open_item, open_rgb


class ImageList(torch.utils.data.Dataset):
    """Pictures of a list.

    Args:
        samples: (path, target) of each; or (URL, target), all of one storage that fsspec opens.
        transform: from PIL image (RGB) to what the model takes.
        target_transform: of targets.
        storage_options: for fsspec: credentials, endpoints.

    Raises:
        ValueError: the list is empty, or mixes storages; names the first that differs.
        ImportError: of URLs: fsspec, or what it needs for that storage, is not installed.

    Attributes:
        samples: as given, also as `imgs`. targets: of all.
        objects: of URLs: who reads them.
    """

    def __init__(
        self,
        samples: Iterable[tuple[str | os.PathLike[str], Any]],
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self.samples = [(os.fspath(path), target) for path, target in samples]
        if not self.samples:
            raise ValueError("the list of samples is empty: give (path, target) of each picture")
        self.imgs = self.samples
        self.targets = [target for _, target in self.samples]
        self.transform = transform
        self.target_transform = target_transform
        self.loader = open_rgb
        self.objects = _objects([path for path, _ in self.samples], storage_options)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """(picture, target), transformed. Errors name index and path."""
        path, target = self.samples[index]
        try:
            if self.objects is not None:
                picture = open_item(self.objects.get(path, int(index)))
            else:
                picture = open_rgb(path)
        except Exception as error:
            raise item_error(error, int(index), path) from error
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, target if self.target_transform is None else self.target_transform(target)

    def __repr__(self) -> str:
        return f"coordl.ImageList({len(self)} pictures, first {self.samples[0][0]!r})"


def _objects(paths: list[str], options: dict[str, Any] | None) -> Objects | None:
    """None of a list of files. Nothing is asked of the storage: a loader's cache does, once."""
    if not is_url(paths[0]):
        other = next((path for path in paths if is_url(path)), None)
        if other is not None:
            raise _mixed(paths[0], other)
        if options:
            raise ValueError(
                f"storage_options are for fsspec's URLs (s3://bucket/1.jpg), and {paths[0]!r} is a "
                "file"
            )
        return None
    place = Place(paths[0], options)
    other = next((path for path in paths if not (is_url(path) and place.has(path))), None)
    if other is not None:
        raise _mixed(paths[0], other)
    return Objects(place, paths, np.full(len(paths), -1, np.int64), Texts.of("" for _ in paths))


def _mixed(one: str, other: str) -> ValueError:
    return ValueError(
        f"{one} and {other} are not of one storage: make a data set of each, and a "
        "torch.utils.data.ConcatDataset of those"
    )
