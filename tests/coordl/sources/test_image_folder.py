"""coordl.ImageFolder: torchvision's layout and attributes, errors that say what is wrong."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, UnidentifiedImageError

import coordl
from coordl import ItemError
from coordl.errors import item_error


@pytest.fixture
def root(tmp_path: Path, photos: list[Path]) -> Path:
    for name in ("cats/deep", "cats", "ants"):
        (tmp_path / name).mkdir(exist_ok=True, parents=True)
    for place in ("cats/b.JPG", "cats/a.jpeg", "cats/deep/0.jpg", "ants/x.jpg"):
        shutil.copyfile(photos[0], tmp_path / place)
    (tmp_path / "cats" / "notes.txt").write_text("no picture")
    (tmp_path / "list.csv").write_text("no class")
    return tmp_path


def test_samples_are_sorted_by_class_then_path(root: Path) -> None:
    data = coordl.ImageFolder(root)
    assert data.classes == ["ants", "cats"]
    assert data.class_to_idx == {"ants": 0, "cats": 1}
    assert [(str(Path(path).relative_to(root)), target) for path, target in data.samples] == [
        ("ants/x.jpg", 0),
        ("cats/a.jpeg", 1),
        ("cats/b.JPG", 1),
        ("cats/deep/0.jpg", 1),
    ]
    assert data.imgs == data.samples and data.targets == [0, 1, 1, 1] and len(data) == 4


def test_a_sample_is_picture_and_target_transformed(root: Path) -> None:
    data = coordl.ImageFolder(root, lambda picture: picture.size, lambda target: -target)
    with Image.open(data.samples[1][0]) as picture:
        assert data[1] == (picture.size, -1)


def test_the_same_as_torchvisions(root: Path, torchvision: object) -> None:
    theirs = torchvision.datasets.ImageFolder(str(root))  # type: ignore[attr-defined]
    ours = coordl.ImageFolder(root)
    assert (ours.classes, ours.samples) == (theirs.classes, theirs.samples)
    assert all(ours[i][0].tobytes() == theirs[i][0].tobytes() for i in range(len(ours)))


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        coordl.ImageFolder(tmp_path / "nowhere")


def test_a_file_as_root_is_no_folder(root: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"list\.csv"):
        coordl.ImageFolder(root / "list.csv")


def test_a_root_without_classes_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no class folders.*<class>/<picture>\.jpg"):
        coordl.ImageFolder(tmp_path)


def test_an_empty_class_is_named(root: Path) -> None:
    (root / "bees").mkdir()
    with pytest.raises(FileNotFoundError, match=r"1 class folder\(s\) .*: bees\."):
        coordl.ImageFolder(root)


def test_no_picture_at_all_lists_the_extensions(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.gif").write_text("")
    with pytest.raises(FileNotFoundError, match=r"No pictures in any .*\.jpg, \.jpeg, \.png"):
        coordl.ImageFolder(tmp_path)


def test_a_bad_file_is_named_with_its_index(root: Path) -> None:
    data = coordl.ImageFolder(root)
    Path(data.samples[2][0]).write_text("no picture")
    with pytest.raises(
        UnidentifiedImageError, match=r"sample 2, .*cats/b\.JPG: cannot identify"
    ) as caught:
        data[2]
    assert "0x" not in str(caught.value) and "<" not in str(caught.value)  # no object's repr


def test_a_workers_error_keeps_its_class(root: Path) -> None:
    data = coordl.ImageFolder(root)
    Path(data.samples[2][0]).unlink()
    loader = torch.utils.data.DataLoader(data, 4, num_workers=1, collate_fn=list)
    with pytest.raises(FileNotFoundError, match=r"sample 2, .*b\.JPG") as caught:
        next(iter(loader))
    assert isinstance(caught.value, ItemError)


# -- ItemError of a cause's class ----------------------------------------------------------------


class Odd(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(code, detail)


@pytest.mark.parametrize(
    "cause",
    [FileNotFoundError(2, "No such file"), ValueError("bad"), Image.DecompressionBombError()],
)
def test_an_item_error_is_of_its_causes_class_and_survives_pickling(cause: Exception) -> None:
    error = item_error(cause, 7, "/a.jpg")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(one, type(cause)) and isinstance(one, ItemError)
        assert (one.index, one.path) == (7, "/a.jpg")
        assert str(one).startswith("sample 7, /a.jpg: ")
        assert getattr(one, "errno", None) == getattr(cause, "errno", None)
    assert type(error) is type(item_error(cause, 8, "/b.jpg"))


def test_a_class_that_cannot_be_combined_is_named() -> None:
    error = item_error(Odd(1, "x"), 7, "/a.jpg")
    assert type(error) is ItemError and "(Odd)" in str(error)


def test_an_item_error_stays_what_it_is() -> None:
    error = ItemError("sample 1: bad", 1, "/a.jpg")
    assert item_error(error, 7, "/b.jpg") is error
