"""Items are held in the form that was asked for, or that suits; the pixels are the same in all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from recipe import train_transform

import coordl
from coordl import _native

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
