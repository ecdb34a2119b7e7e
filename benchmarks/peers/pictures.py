"""The two picture sets: like ImageNet's files and like OpenImages', from the demo's photographs."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from demo import crops, photos

LARGE = photos.PictureSet("photos-large-v1", train=300, val=0, statistics=crops.OPENIMAGES)
SETS = {"ImageNet-like": photos.demo_set(), "OpenImages-like": LARGE}


def folder(name: str) -> Path:
    """The folder of a set by name, built in the user's cache directory where it is not there yet.

    Raises:
        photos.PhotosError: it cannot be had; says why.
    """
    return photos.build(wanted=SETS[name]) / "train"


def choose(place: Path, most: int, seed: int) -> list[Path]:
    """At most so many .jpg files below a folder, a seeded choice in a seeded order."""
    paths = sorted(p for p in place.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    return random.Random(seed).sample(paths, min(len(paths), most))


@contextlib.contextmanager
def linked(source: Path, most: int, seed: int, times: int = 1) -> Iterator[Path]:
    """A folder of hard links to so many of the pictures, each `times`, in one class, on the same
    disk."""
    with tempfile.TemporaryDirectory(dir=source.parent, prefix="benchmark-") as folder:
        place = Path(folder) / "class"
        place.mkdir()
        for number, path in enumerate(choose(source, most, seed) * times):
            target = place / f"{number:05}{path.suffix}"
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)
        yield Path(folder)
