"""What cannot be read or decoded: an error at its place that names index and path, or no error
where the user's own loader copes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, UnidentifiedImageError
from recipe import STD, train_transform

import coordl
from coordl import ItemError
from coordl.prep.plan import Plan, compile_plan, format_names
from coordl.prep.vision import prepare_image


def remove(path: Path) -> None:
    path.unlink()


def no_image(path: Path) -> None:
    path.write_text("this is no picture")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILT: list[tuple[Callable[[Path], None], type[Exception], str]] = [
    (remove, FileNotFoundError, "No such file"),
    (no_image, UnidentifiedImageError, "cannot identify"),
    (empty, UnidentifiedImageError, "cannot identify"),
    (cut_short, OSError, "truncated"),
    (a_folder, IsADirectoryError, "directory"),
]


@pytest.mark.parametrize(("spoil", "kind", "said"), SPOILT)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [None, "100%"])
def test_a_bad_file_is_an_error_at_its_place_and_the_rest_goes_on(
    folder: Path,
    spoil: Callable[[Path], None],
    kind: type[Exception],
    said: str,
    workers: int,
    cache: str | None,
) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    path = data.samples[9][0]
    spoil(Path(path))
    loader = coordl.DataLoader(data, 4, num_workers=workers, cache=cache, prep="native")
    batches = iter(loader)
    assert len(next(batches)[1]) == len(next(batches)[1]) == 4
    with pytest.raises(kind, match=said) as caught:
        next(batches)
    assert isinstance(caught.value, ItemError)
    assert (caught.value.index, caught.value.path) == (9, path)
    assert "sample 9" in str(caught.value) and path in str(caught.value)
    assert " object at 0x" not in str(caught.value)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]


def test_an_unreadable_file_is_a_permission_error(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    data = coordl.ImageFolder(folder, train_transform())
    os.chmod(data.samples[0][0], 0)
    with pytest.raises(PermissionError, match="sample 0"):
        next(iter(coordl.DataLoader(data, 4)))


def test_a_subset_names_its_own_index(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    os.unlink(data.samples[9][0])
    part = torch.utils.data.Subset(data, [3, 9])
    with pytest.raises(FileNotFoundError, match=r"sample 1\b"):
        next(iter(coordl.DataLoader(part, 2)))


@pytest.mark.parametrize("cache", [None, "100%"])
def test_other_formats_among_jpegs_are_prepared_by_pillow(
    folder: Path, photos: list[Path], cache: str | None
) -> None:
    """A GIF and a CMYK file under a .jpg name: same draws, exactly the reference's pixels."""
    data = coordl.ImageFolder(folder, train_transform())
    with Image.open(photos[0]) as picture:
        picture.save(data.samples[2][0], "GIF")
        picture.convert("CMYK").save(data.samples[5][0], "JPEG")
    loader = coordl.DataLoader(data, 22, seed=3, prep="native", cache=cache)
    plan = compile_plan(data.transform)
    assert isinstance(plan, Plan)
    for epoch in range(2):
        images, _ = next(iter(loader))
        for index in (2, 5, 6):
            with Image.open(data.samples[index][0]) as picture:
                expected = torch.from_numpy(prepare_image(picture, plan, 3, epoch, index))
            tolerance = 0 if index in (2, 5) else 1.01 / 255 / min(STD)
            assert (images[index] - expected).abs().max() <= tolerance
    if cache:
        assert loader.stats()["epochs"][1]["misses"] == 0


def test_a_folder_mostly_of_other_formats_is_left_to_worker_processes(
    tmp_path: Path, photos: list[Path]
) -> None:
    (tmp_path / "a").mkdir()
    for number in range(2):
        with Image.open(photos[number]) as picture:
            picture.save(tmp_path / "a" / f"{number}.bmp")
    data = coordl.ImageFolder(tmp_path, train_transform())
    named = f"100% of the files are no {format_names()} by name"
    assert named in coordl.DataLoader(data).plan()
    assert len(list(coordl.DataLoader(data, 2, prep="native"))) == 1
