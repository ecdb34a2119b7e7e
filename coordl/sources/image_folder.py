"""Image folders with torchvision's layout and attributes, without torchvision; and packed ones.

root/class_a/1.jpg
root/class_a/sub/2.png
root/class_b/3.jpg
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch.utils.data

from coordl import _native
from coordl.errors import PackedDataError, item_error
from coordl.fetch.item import Items
from coordl.fetch.shards import open_packed
from coordl.fetch.storage import fetch
from coordl.sources.class_folders import find_class_folders

IMAGE_EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
)  # fmt: skip


def open_rgb(source: str | IO[bytes]) -> Any:
    """The picture as a PIL image in RGB, decoded, its file closed: as torchvision's loader."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, str):
        with open(source, "rb") as file:
            return open_rgb(file)
    try:
        return Image.open(source).convert("RGB")
    except UnidentifiedImageError:  # Pillow's text names the object its bytes came in
        raise UnidentifiedImageError(
            "cannot identify the picture's format by its first bytes: it is no image file, or one "
            "that this Pillow cannot open"
        ) from None


def open_item(item: bytes | memoryview) -> Any:
    """The picture in an item of any form, as open_rgb() gives that of the original file.

    `info` (EXIF, ICC profile) is there where the item carries its JPEG's header.

    Raises:
        PackedDataError: a packed or indexed item is damaged.
    """
    from PIL import Image

    size = None if _native.form(item) == "original" else _native.image_size(item)
    if size is None:  # also of a file that only begins as ours do: Pillow says what it makes of it
        with io.BytesIO(item) as file:
            return open_rgb(file)
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    if not _native.decode_region(item, 0, 0, pixels):
        raise PackedDataError(f"the {_native.form(item)} item of {len(item):,} bytes is damaged")
    picture = Image.fromarray(pixels)
    header = _native.jpeg_header(item)
    if header:
        with Image.open(io.BytesIO(header)) as opened:  # reads up to the scan, decodes nothing
            picture.info = dict(opened.info)
    return picture


class ImageFolder(torch.utils.data.Dataset):
    """Pictures in class folders, on this machine or in storage that fsspec opens.

    Args:
        root: folder with one folder per class; pictures may lie deeper in it. Or its URL, as
            "s3://bucket/train": it is listed now, and holds as it is now.
        transform: from PIL image to what the model takes.
        target_transform: from class number to target.
        loader: from path, or URL, to PIL image.
        storage_options: for fsspec: credentials, endpoints.

    Raises:
        FileNotFoundError: root is missing, holds no class folders, or a class holds no picture.
        NotADirectoryError: root is a file.
        ItemError: remote storage cannot be listed; says why, and is an OSError as well.
        ImportError: of a URL: fsspec, or what it needs for that storage, is not installed.

    Attributes:
        classes: class names, sorted. class_to_idx: name to number.
        samples: (path or URL, class number) in order of class, then path; also as `imgs`.
        targets: class numbers.
        objects: of a URL: who reads them.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        loader: Callable[[str], Any] = open_rgb,
        *,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self.root = os.fspath(root)
        self.transform = transform
        self.target_transform = target_transform
        self.loader = loader
        self.extensions = IMAGE_EXTENSIONS
        found = find_class_folders(
            self.root, IMAGE_EXTENSIONS, "pictures", "<picture>.jpg", storage_options
        )
        self.classes, self.samples, self.objects = found.classes, found.samples, found.objects
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.imgs = self.samples
        self.targets = [target for _, target in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """(picture, target), transformed. Errors of the loader name index and path."""
        path, target = self.samples[index]
        try:
            if self.objects is not None and self.loader is open_rgb:
                picture = open_item(self.objects.get(path, int(index)))
            else:
                picture = self.loader(path)
        except Exception as error:
            raise item_error(error, int(index), path) from error
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, target if self.target_transform is None else self.target_transform(target)

    def __repr__(self) -> str:
        return (
            f"coordl.ImageFolder({self.root!r}: {len(self)} pictures, {len(self.classes)} classes)"
        )


class PackedFolder(torch.utils.data.Dataset):
    """An image folder that `coordl pack` made into shards: same samples, same pixels, same order.

    coordl.DataLoader reads it natively; in a stock DataLoader it works as ImageFolder does.

    Args:
        root: the folder `coordl pack` made.
        transform: from PIL image to what the model takes.
        target_transform: from class number to target.

    Raises:
        FileNotFoundError: there is no such folder.
        PackedDataError: it holds no finished packed data set, or a damaged one; names the file.

    Attributes:
        classes: class names, sorted. class_to_idx: name to number.
        samples: (original path below its root, class number) in order of class, then path; also as
            `imgs`.
        targets: class numbers.
        packed: index and manifest.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.root = os.fspath(root)
        self.transform = transform
        self.target_transform = target_transform
        self.packed = open_packed(self.root)
        index = self.packed.index
        self.classes = index.classes
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.samples = list(zip(index.names, index.targets.tolist(), strict=True))
        self.imgs = self.samples
        self.targets: list[int] = index.targets.tolist()
        self._items: Items | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """(picture, target), transformed. Errors name index, original path and shard."""
        name, target = self.samples[index]
        if self._items is None:
            self._items = self.packed.items(keyed=False)
        row = range(len(self))[index]  # negative ones count from the end
        try:
            picture = open_item(fetch(self._items, row))
        except Exception as error:
            raise item_error(error, row, name) from error
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, target if self.target_transform is None else self.target_transform(target)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_items": None}

    def __repr__(self) -> str:
        return (
            f"coordl.PackedFolder({self.root!r}: {len(self)} pictures, {len(self.classes)} classes)"
        )
