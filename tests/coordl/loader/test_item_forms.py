"""Items are held in the form that was asked for, or that suits; the pixels are the same in all."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from recipe import train_transform

import coordl
from coordl import _native
from coordl.fetch.budget import format_bytes

DATA = Path(__file__).parents[2] / "data"
FORMS = ["original", "indexed", "packed"]


@pytest.fixture(autouse=True)
def arenas(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A directory of arenas of its own."""
    monkeypatch.setenv("COORDL_SHM_DIR", str(tmp_path_factory.mktemp("arenas")))
    yield
    import gc

    gc.collect()


def loader_of(folder: Path, **more) -> coordl.DataLoader:
    data = coordl.ImageFolder(folder, train_transform())
    return coordl.DataLoader(data, 4, num_workers=2, seed=3, **more)


def images(loader: coordl.DataLoader) -> torch.Tensor:
    return torch.cat([batch for batch, _ in loader])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bits_in_first_and_later_epochs(folder: Path, form: str) -> None:
    plain = loader_of(folder)
    loader = loader_of(folder, cache="200%", cache_form=form)
    for _ in range(3):
        assert torch.equal(images(loader), images(plain))
    stats = loader.stats()
    assert stats["epochs"][1][f"from_{form}"] == stats["epochs"][1]["samples"]
    assert stats["cache_forms"] == {each: 22 * (each == form) for each in FORMS}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Real photographs: the small drawn pictures of other tests grow more when packed."""
    root = tmp_path / "photographs"
    for number in range(3):
        shutil.copytree(DATA, root / str(number), ignore=shutil.ignore_patterns("*.md"))
    return root


def test_a_cache_with_room_for_it_packs_by_itself(photographs: Path) -> None:
    loader = loader_of(photographs, cache="200%")
    images(loader)
    assert loader.stats()["cache_forms"] == {"original": 0, "indexed": 0, "packed": 12}


def test_a_cache_that_just_holds_the_files_keeps_all_of_them_as_they_are(folder: Path) -> None:
    loader = loader_of(folder, cache="100%")
    images(loader)
    assert loader.stats()["cache_forms"] == {"original": 22, "indexed": 0, "packed": 0}


@pytest.mark.parametrize("form", FORMS)
def test_python_transforms_read_any_form_another_loader_left(folder: Path, form: str) -> None:
    native = loader_of(folder, cache="200%", cache_form=form)
    images(native)
    data = coordl.ImageFolder(folder, lambda picture: torch.tensor(list(picture.tobytes()[:150])))
    cached = coordl.DataLoader(data, None, cache="200%", cache_form=form)
    with_files = [sample for sample, _ in coordl.DataLoader(data, None)]
    from_cache = [sample for sample, _ in cached]
    assert cached.stats()["total"]["hits"] == 22
    assert all(torch.equal(a, b) for a, b in zip(from_cache, with_files, strict=True))


def test_a_full_cache_leaves_items_as_files_and_prepares_them_all_the_same(folder: Path) -> None:
    loader = loader_of(folder, cache="60%", cache_form="packed")
    first, second = images(loader), images(loader)
    plain = loader_of(folder)
    assert torch.equal(first, images(plain)) and torch.equal(second, images(plain))
    held = loader.stats()["cache_forms"]
    assert 0 < held["packed"] < 22
    assert loader.stats()["epochs"][1]["misses"] == 22 - sum(held.values())


def test_a_form_without_a_cache_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="cache_form='packed' needs cache="):
        loader_of(folder, cache_form="packed")
    assert loader_of(folder, cache_form="auto").cache_form == "auto"  # as frameworks rebuild it


def test_a_form_other_than_the_given_caches_is_an_error(folder: Path) -> None:
    with coordl.MinIOCache("1MiB", name="t-forms", form="indexed") as cache:
        with pytest.raises(
            ValueError, match="'packed', and the MinIOCache given has form='indexed'"
        ):
            loader_of(folder, cache=cache, cache_form="packed")
        for form in ("auto", "indexed"):
            assert loader_of(folder, cache=cache, cache_form=form).cache is cache


def test_loaders_of_all_forms_ask_for_the_same_budget(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    size = sum(Path(path).stat().st_size for path, _ in data.samples)
    loaders = [loader_of(folder, cache="200%", cache_form=form) for form in (*FORMS, "auto")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "has a budget of ... already"
        for loader in loaders:
            images(loader)
    for loader in loaders:
        assert loader.stats()["cache_budget"] == int(1.8 * size)
        assert loader.stats()["cache_limit"] == "holding every item takes no more"
        assert ", as holding every item takes no more" in loader.plan()


def test_a_budget_in_force_as_asked_has_no_reason(folder: Path) -> None:
    loader = loader_of(folder, cache="60%")
    assert loader.stats()["cache_limit"] is None
    images(loader)
    assert loader.stats()["cache_limit"] == ""


def test_a_larger_budget_asked_for_by_another_is_told_as_such(folder: Path) -> None:
    first = loader_of(folder, cache="60%")
    images(first)
    second = loader_of(folder, cache="90%")
    images(second)
    assert second.stats()["cache_limit"] == ""
    assert first.stats()["cache_limit"] == "the largest asked for so far"
    assert first.stats()["cache_budget"] == second.stats()["cache_budget"]
    third = loader_of(folder, cache="30%")
    with pytest.warns(UserWarning, match="the largest asked for so far"):
        images(third)
    assert third.stats()["cache_limit"] == "the largest asked for so far"


def test_plan_shows_what_is_held_once_the_cache_is_open(folder: Path) -> None:
    loader = loader_of(folder, cache="200%", cache_form="packed")
    assert "in force" not in loader.plan() and "200%" in loader.plan()
    images(loader)
    stats = loader.stats()
    assert f"in force: {format_bytes(stats['cache_budget'])}" in loader.plan()
    assert f"held now: {format_bytes(stats['cache_bytes'])}, " in loader.plan()
    assert "22 items (22 packed)" in loader.plan()


def test_status_and_plan_say_in_which_form_items_are_held(folder: Path) -> None:
    loader = loader_of(folder, cache="200%", cache_form="packed")
    images(loader)
    assert "items held packed" in loader.plan()
    (arena,) = _native.list_arenas()
    assert arena["packed_items"] == 22 and arena["packed_bytes"] == arena["used_bytes"]


@pytest.mark.parametrize("form", FORMS)
def test_python_transforms_see_the_metadata_of_any_form(tmp_path: Path, form: str) -> None:
    """A native loader's packed items once had no EXIF: a rotated picture came out unrotated."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        with Image.open(DATA / "coffee.jpg") as picture:
            picture.save(tmp_path / "set" / name / "1.jpg", exif=exif, quality=92)
    images(loader_of(tmp_path / "set", cache="200%", cache_form=form))

    def turned(picture: Image.Image) -> torch.Tensor:
        return torch.tensor(list(ImageOps.exif_transpose(picture).tobytes()[:3000]))

    held = loader_of(tmp_path / "set", cache="200%", cache_form=form)
    images(held)  # keeps the arena alive
    data = coordl.ImageFolder(tmp_path / "set", turned)
    cached = coordl.DataLoader(data, None, cache="200%", cache_form=form)
    plain = coordl.DataLoader(data, None)
    for ours, theirs in zip(cached, plain, strict=True):
        assert torch.equal(ours[0], theirs[0])
    assert cached.stats()["total"]["hits"] == 2


@pytest.mark.parametrize("form", FORMS)
def test_python_loaders_hold_items_in_the_form_asked_for(folder: Path, form: str) -> None:
    data = coordl.ImageFolder(folder, lambda picture: torch.tensor(picture.size))
    loader = coordl.DataLoader(data, None, cache="200%", cache_form=form)
    for _ in loader:
        pass
    assert loader.stats()["cache_forms"] == {each: 22 * (each == form) for each in FORMS}
