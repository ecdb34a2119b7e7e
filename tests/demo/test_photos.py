"""The demo's picture set: what a folder must be, and how the set appears."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from demo import crops, photos, sources
from demo.photos import PhotosError, check_folder

PICTURE = sorted((Path(__file__).parent.parent / "data").glob("*.jpg"))[0]


def class_folder(folder: Path, pictures: int) -> None:
    folder.mkdir(parents=True)
    for number in range(pictures):
        shutil.copyfile(PICTURE, folder / f"{number}.jpg")


# ----------------------------------------------------------------------- a folder the user names


def test_train_and_val_folders_are_counted(tmp_path: Path) -> None:
    class_folder(tmp_path / "train/a", 3)
    class_folder(tmp_path / "train/b", 2)
    class_folder(tmp_path / "val/a", 1)

    found = check_folder(tmp_path, fewest=5)

    assert (found.train, found.val) == (tmp_path / "train", tmp_path / "val")
    assert (found.classes, found.train_pictures, found.val_pictures) == (2, 5, 1)


def test_class_folders_alone_serve_without_validation(tmp_path: Path) -> None:
    class_folder(tmp_path / "a", 2)
    class_folder(tmp_path / "b/nested", 2)

    found = check_folder(tmp_path, fewest=4)

    assert (found.train, found.val, found.train_pictures) == (tmp_path, None, 4)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PhotosError, match=r"nowhere does not exist\. Name a folder"):
        check_folder(tmp_path / "nowhere")


def test_file_instead_of_folder_is_named() -> None:
    with pytest.raises(PhotosError, match=r"\.jpg is not a folder"):
        check_folder(PICTURE)


def test_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PhotosError, match="is empty"):
        check_folder(tmp_path)


def test_loose_pictures_need_class_folders(tmp_path: Path) -> None:
    shutil.copyfile(PICTURE, tmp_path / "a.jpg")
    with pytest.raises(PhotosError, match=r"no class folders \(1 pictures lie loose"):
        check_folder(tmp_path)


def test_class_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/readme.txt").touch()
    with pytest.raises(PhotosError, match="1 folders but no picture"):
        check_folder(tmp_path)


def test_one_class_without_pictures_is_named(tmp_path: Path) -> None:
    class_folder(tmp_path / "a", 2)
    (tmp_path / "b").mkdir()
    with pytest.raises(PhotosError, match="b holds no picture"):
        check_folder(tmp_path, fewest=1)


def test_too_few_pictures_say_how_many_are_needed(tmp_path: Path) -> None:
    class_folder(tmp_path / "a", 2)
    with pytest.raises(PhotosError, match="2 pictures, fewer than the 64"):
        check_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_class_folder_is_named(tmp_path: Path) -> None:
    class_folder(tmp_path / "a", 2)
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(PhotosError, match="a cannot be read: Permission denied"):
            check_folder(tmp_path, fewest=1)
    finally:
        (tmp_path / "a").chmod(0o700)


# -------------------------------------------------------------------------------- the built set


@pytest.fixture
def local_packages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Packages that lie in tests/data instead of the network; lists the origins asked for."""
    asked: list[str] = []

    def unpack(origin: str, work: Path) -> Iterator[tuple[str, list[sources.Unpacked]]]:
        asked.append(origin)
        for number in range(8):
            photo = sources.Photo(f"class{number}", "package", PICTURE.name, "author", "CC0")
            yield "package", [sources.Unpacked(photo, PICTURE, "1.0")]

    monkeypatch.setattr(sources, "unpack", unpack)
    monkeypatch.setattr(sources, "apt_at_hand", lambda: True)
    monkeypatch.setattr(photos, "TRAIN", 24)
    monkeypatch.setattr(photos, "VAL", 8)
    return asked


@pytest.fixture
def quiet() -> Console:
    return Console(file=io.StringIO())


def test_set_has_the_pictures_its_manifest_says(
    local_packages: list[str], quiet: Console, tmp_path: Path
) -> None:
    place = photos.build(tmp_path / "set", console=quiet)

    manifest = json.loads((place / "manifest.json").read_text())
    files = sorted(place.glob("train/*/*.jpg"))
    assert manifest["train"] == {"pictures": 24, "bytes": sum(f.stat().st_size for f in files)}
    assert len(files) == 24
    assert len(list(place.glob("val/*/*.jpg"))) == 8
    assert manifest["sources"][0]["licence"] == "CC0"
    assert check_folder(place, fewest=24).classes == 8


def test_second_build_fetches_nothing(
    local_packages: list[str], quiet: Console, tmp_path: Path
) -> None:
    photos.build(tmp_path / "set", console=quiet)
    photos.build(tmp_path / "set", console=quiet)
    assert local_packages == ["apt"]


def test_set_that_lost_a_picture_is_built_again(
    local_packages: list[str], quiet: Console, tmp_path: Path
) -> None:
    place = photos.build(tmp_path / "set", console=quiet)
    next(place.glob("train/*/*.jpg")).unlink()

    photos.build(place, console=quiet)

    assert len(list(place.glob("train/*/*.jpg"))) == 24


def test_build_removes_what_a_killed_one_left(
    local_packages: list[str], quiet: Console, tmp_path: Path
) -> None:
    (tmp_path / ".set.building-killed/packages").mkdir(parents=True)
    photos.build(tmp_path / "set", console=quiet)
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_failed_build_leaves_nothing(
    local_packages: list[str], quiet: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(order: crops.Order, out: Path) -> list[int]:
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(crops, "cut", no_room)
    with pytest.raises(PhotosError, match=r"need 900 MB .* Make room, or set XDG_CACHE_HOME"):
        photos.build(tmp_path / "set", console=quiet)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_someone_else_is_not_replaced(
    local_packages: list[str], quiet: Console, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(PhotosError, match="no picture set of ours"):
        photos.build(tmp_path, console=quiet)
    assert (tmp_path / "thesis.tex").exists()


def test_place_below_a_file_is_an_error_that_names_the_way_out(
    local_packages: list[str], quiet: Console, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PhotosError, match=r"file cannot be used: .*Set XDG_CACHE_HOME"):
        photos.build(tmp_path / "file/set", console=quiet)


def test_pip_packages_serve_where_apt_fails(
    local_packages: list[str], quiet: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = sources.unpack

    def unpack(origin: str, work: Path) -> Iterator[tuple[str, list[sources.Unpacked]]]:
        if origin == "apt":
            local_packages.append(origin)
            raise PhotosError("apt-get download failed: no network")
        return local(origin, work)

    monkeypatch.setattr(sources, "unpack", unpack)
    place = photos.build(tmp_path / "set", console=quiet)

    assert local_packages == ["apt", "pip"]
    assert json.loads((place / "manifest.json").read_text())["origin"] == "pip"


def test_cache_place_follows_xdg_and_ignores_relative_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert photos.default_place() == tmp_path / "data-stall-toolkit/photos-v1"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert photos.default_place() == tmp_path / ".cache/data-stall-toolkit/photos-v1"


# -------------------------------------------------------------------------------- the pictures


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    order = crops.Order("a", PICTURE, train=3, val=1, version="v")
    assert crops.cut(order, tmp_path / "1") == crops.cut(order, tmp_path / "2")
    for one in sorted((tmp_path / "1").rglob("*.jpg")):
        other = tmp_path / "2" / one.relative_to(tmp_path / "1")
        assert one.read_bytes() == other.read_bytes()


def test_larger_pictures_need_larger_photographs() -> None:
    assert crops.large_enough(PICTURE, crops.IMAGENET)
    assert not crops.large_enough(PICTURE, crops.OPENIMAGES)


def test_larger_pictures_have_the_sizes_promised(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with Image.open(PICTURE) as picture:
        picture.resize((2048, 1536), Image.Resampling.BICUBIC).save(large)
    order = crops.Order("a", large, train=3, val=0, version="v", statistics=crops.OPENIMAGES)

    crops.cut(order, tmp_path)

    sizes = [Image.open(file).size for file in tmp_path.rglob("*.jpg")]
    assert len(sizes) == 3
    assert all(max(size) == 1024 and 680 <= min(size) <= 770 for size in sizes)


def test_pictures_have_the_sizes_promised(tmp_path: Path) -> None:
    sizes = crops.cut(crops.Order("a", PICTURE, train=12, val=0, version="v"), tmp_path)

    assert all(50_000 <= size <= crops.IMAGENET.bytes_high for size in sizes)
    for file in tmp_path.rglob("*.jpg"):
        with Image.open(file) as picture:
            assert 300 <= min(picture.size) <= max(picture.size) <= 600


def test_class_names_and_files_of_the_listed_photographs_are_distinct() -> None:
    for listed in (sources.DEBIAN_PHOTOS, sources.PIP_PHOTOS):
        assert len({photo.name for photo in listed}) == len(listed)
        assert len({(photo.package, photo.path) for photo in listed}) == len(listed)


def test_every_listed_photograph_has_its_licence_in_the_documentation() -> None:
    page = (Path(__file__).parent.parent.parent / "docs/pictures.md").read_text()
    for photo in [*sources.DEBIAN_PHOTOS, *sources.PIP_PHOTOS]:
        row = next(line for line in page.splitlines() if line.startswith(f"| {photo.name} |"))
        assert photo.package in row
        assert row.endswith(f"| {photo.author} | {photo.licence} |")
