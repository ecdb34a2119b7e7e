"""Files in class folders, as torchvision lists them: root/<class>/[deeper/]<file>.

A root that is a URL is listed through fsspec, to the same classes and the same order.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordl.fetch.objects import Objects, tried
from coordl.fetch.place import Place, is_url
from coordl.fetch.remote import version_in
from coordl.fetch.retry import Retry
from coordl.fetch.texts import Texts


@dataclass(frozen=True)
class ClassFolders:
    """What lies below a root.

    Attributes:
        classes: names of the class folders, sorted.
        samples: (path or URL, class number) in order of class, then path.
        objects: who reads them, where the root is a URL.
    """

    classes: list[str]
    samples: list[tuple[str, int]]
    objects: Objects | None = None


def find_class_folders(
    root: str,
    extensions: tuple[str, ...],
    what: str,
    example: str,
    options: dict[str, Any] | None = None,
) -> ClassFolders:
    """Lists a root.

    Args:
        root: folder, or its URL. extensions: of files that count, in lower case.
        what: they hold, as "pictures", for messages. example: a file's name.
        options: for fsspec.

    Raises:
        FileNotFoundError: root is missing, holds no folders, or a class holds no file with one of
            the extensions.
        NotADirectoryError: root is a file.
        ItemError: remote storage cannot be listed; names the URL, and is an OSError as well.
        ValueError: options for a local folder.
    """
    if is_url(root):
        return _remote(Place(root, options), extensions, what, example)
    if options:
        raise ValueError(
            f"storage_options are for fsspec's URLs (s3://bucket/train), and {root!r} is a folder"
        )
    classes = _local_classes(root)
    _refuse_none(classes, root, what, example)
    samples: list[tuple[str, int]] = []
    empty: list[str] = []
    for number, name in enumerate(classes):
        found = list(_local_files(os.path.join(root, name), extensions))
        samples += [(path, number) for path in found]
        empty += [] if found else [name]
    _refuse_empty(empty, classes, root, what, extensions)
    return ClassFolders(classes, samples)


def _local_classes(root: str) -> list[str]:
    if not os.path.exists(root):
        raise FileNotFoundError(
            f"There is no folder {root!r}. Name the folder that holds one folder per class."
        )
    with os.scandir(root) as entries:  # NotADirectoryError names it when root is a file
        return sorted(entry.name for entry in entries if entry.is_dir())


def _local_files(folder: str, extensions: tuple[str, ...]) -> Iterator[str]:
    for parent, _, files in sorted(os.walk(folder, followlinks=True)):
        for file in sorted(files):
            if file.lower().endswith(extensions):
                yield os.path.join(parent, file)


def _remote(place: Place, extensions: tuple[str, ...], what: str, example: str) -> ClassFolders:
    found, folders = tried(Retry(), place.listed, place.url)
    members: dict[str, list[tuple[str, str]]] = defaultdict(list)  # (folder, file) by class
    for path in found:
        name, below, _ = path.partition("/")
        if not below:
            continue
        folders.add(name)
        if path.lower().endswith(extensions):
            folder, _, file = path.rpartition("/")
            members[name].append((folder, file))
    classes = sorted(folders)
    _refuse_none(classes, place.url, what, example)
    empty = [name for name in classes if name not in members]
    _refuse_empty(empty, classes, place.url, what, extensions)
    paths = [f"{folder}/{file}" for name in classes for folder, file in sorted(members[name])]
    below = f"{place.root}/" if place.root else ""
    urls = [place.url_of(below + path) for path in paths]
    numbers = {name: number for number, name in enumerate(classes)}
    samples = [
        (url, numbers[path.partition("/")[0]]) for url, path in zip(urls, paths, strict=True)
    ]
    sizes = (found[path].get("size") for path in paths)
    listed = Objects(
        place,
        urls,
        np.fromiter((size if isinstance(size, int) else -1 for size in sizes), np.int64, len(urls)),
        Texts.of(version_in(found[path]) for path in paths),
    )
    return ClassFolders(classes, samples, listed)


def _refuse_none(classes: list[str], root: str, what: str, example: str) -> None:
    if not classes:
        raise FileNotFoundError(
            f"{root!r} holds no class folders. {what.capitalize()} belong into one folder per "
            f"class: {root}/<class>/{example}"
        )


def _refuse_empty(
    empty: list[str], classes: list[str], root: str, what: str, extensions: tuple[str, ...]
) -> None:
    if not empty:
        return
    known = ", ".join(extensions)
    if len(empty) == len(classes):
        raise FileNotFoundError(
            f"No {what} in any of the {len(classes)} class folders of {root!r}. "
            f"Files count as {what} by their extension: {known}"
        )
    shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
    raise FileNotFoundError(
        f"No {what} in {len(empty)} class folder(s) of {root!r}: {shown}. Remove them or add "
        f"{what}; extensions known: {known}"
    )
