"""Columns of Hugging Face data sets, the real package: skipped where it is not installed."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import coordl
from coordl import HuggingFaceAudio, HuggingFaceImages, ItemError
from coordl import transforms as T

datasets = pytest.importorskip("datasets", reason="datasets is not installed")

CROP = T.Compose([T.RandomResizedCrop(32), T.RandomHorizontalFlip(), T.ToTensor()])
COUNT = 11


def features(**others: Any) -> Any:
    return datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"]), **others}
    )


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    """The same pictures as files in class folders, in the rows' order."""
    root = tmp_path / "pictures"
    for number in range(COUNT):
        home = root / "abc"[number * 3 // COUNT]
        home.mkdir(parents=True, exist_ok=True)
        data = photos[number % len(photos)].read_bytes()
        (home / f"{number:02}.jpg").write_bytes(data)
    return root


@pytest.fixture(params=["bytes", "mapped", "paths"])
def rows(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Any:
    """A data set with the pictures inside it, in memory or mapped, or with their paths only."""
    local = coordl.ImageFolder(folder)
    column: list[Any] = [path for path, _ in local.samples]
    if request.param != "paths":
        column = [{"bytes": Path(path).read_bytes(), "path": Path(path).name} for path in column]
    table = {"image": column, "label": local.targets}
    made = datasets.Dataset.from_dict(table, features=features())
    if request.param == "mapped":
        made.save_to_disk(tmp_path / "saved")
        made = datasets.load_from_disk(tmp_path / "saved")
    return made


def same(ours: list[Any], theirs: list[Any]) -> bool:
    assert len(ours) == len(theirs) > 0
    return all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(ours, theirs, strict=True)
    )


def expected(folder: Path) -> list[Any]:
    loader = coordl.DataLoader(coordl.ImageFolder(folder, CROP), 4, seed=5)
    return [batch for _ in range(2) for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [None, "100%", "40%"])
def test_minibatches_are_those_of_the_same_files(
    rows: Any, folder: Path, workers: int, cache: str | None
) -> None:
    data = HuggingFaceImages(rows, CROP)
    loader = coordl.DataLoader(data, 4, seed=5, num_workers=workers, cache=cache)
    assert same([*loader, *loader], expected(folder))


@pytest.mark.slow  # a new process imports everything
def test_spawned_workers_do_the_same(rows: Any, folder: Path) -> None:
    data = HuggingFaceImages(rows, CROP)
    loader = coordl.DataLoader(
        data, 4, seed=5, num_workers=1, cache="100%", multiprocessing_context="spawn"
    )
    assert same([*loader, *loader], expected(folder))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stock_loader_takes_it(rows: Any, folder: Path, workers: int) -> None:
    crop = T.Compose([T.CenterCrop(32), T.ToTensor()])
    stock = torch.utils.data.DataLoader
    ours = list(stock(HuggingFaceImages(rows, crop), 4, num_workers=workers))
    assert same(ours, list(stock(coordl.ImageFolder(folder, crop), 4)))


def test_hits_are_counted_and_the_plan_says_what_is_native(rows: Any) -> None:
    loader = coordl.DataLoader(HuggingFaceImages(rows, CROP), 4, cache="100%")
    for _ in range(2):
        list(loader)
    assert [epoch["hits"] for epoch in loader.stats()["epochs"]] == [0, COUNT]
    plan = loader.plan()
    assert "read through Arrow" in plan and "after a native pass" in plan
    with pytest.raises(ValueError, match="read through Arrow"):
        coordl.DataLoader(loader.dataset, prep="native")


def test_chosen_and_shuffled_rows_are_what_the_data_set_says(rows: Any) -> None:
    """Each under its own identity, though they share one table."""
    views = [
        rows,
        rows.shuffle(seed=1),
        rows.select(range(3, 9)),
        rows.select([7, 0, 7]),
        rows.filter(lambda label: label == 1, input_columns="label"),
        rows.shuffle(seed=2).select(range(4)),
        datasets.concatenate_datasets([rows, rows]),
    ]
    cache = coordl.MinIOCache("64MiB", name="t-huggingface")
    crop = T.Compose([T.CenterCrop(40), T.ToTensor()])
    for view in views:
        data = HuggingFaceImages(view, crop)
        for _ in range(2):
            batches = list(coordl.DataLoader(data, 4, cache=cache))
            for number, picture in enumerate(torch.cat([images for images, _ in batches])):
                theirs = crop(view[number]["image"].convert("RGB"))
                assert (picture - theirs).abs().max() <= 1.01 / 255
            labels = torch.cat([labels for _, labels in batches]).tolist()
            assert labels == list(view["label"])


def test_pictures_are_rgb_and_not_decoded_by_the_data_set(
    rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [rows[i]["image"].convert("RGB").tobytes() for i in range(3)]

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("decoded")

    monkeypatch.setattr(datasets.Image, "decode_example", refused)
    data = HuggingFaceImages(rows)
    assert [data[i][0].tobytes() for i in range(3)] == pictures and data[-1][1] == 2


def test_formats_of_the_data_set_do_not_matter(rows: Any, folder: Path) -> None:
    for formed in (rows.with_format("torch"), rows.with_format("numpy", columns=["label"])):
        assert same(
            list(coordl.DataLoader(HuggingFaceImages(formed, CROP), 4, seed=5)),
            expected(folder)[:3],
        )


def test_targets_are_of_any_columns(folder: Path) -> None:
    path = coordl.ImageFolder(folder).samples[0][0]
    table = {
        "image": [path] * 2,
        "label": [2, 0],
        "text": ["x", "y"],
        "score": [0.5, 1.5],
        "tags": [[1, 2], [3]],
    }
    types = {
        "text": datasets.Value("string"),
        "score": datasets.Value("float32"),
        "tags": datasets.Sequence(datasets.Value("int64")),
    }
    made = datasets.Dataset.from_dict(table, features=features(**types))
    data = HuggingFaceImages(made, None, str, target=["text", "label", "score", "tags"])
    assert data[1][1] == str(("y", 0, 1.5, [3]))
    by_text = HuggingFaceImages(made, CROP, target="text")
    assert next(iter(coordl.DataLoader(by_text, 2)))[1] == ("x", "y")


def test_other_formats_and_damage(tmp_path: Path, photos: list[Path]) -> None:
    with Image.open(photos[0]) as picture:
        png, gif = io.BytesIO(), io.BytesIO()
        picture.save(png, "PNG")
        picture.save(gif, "GIF")
    inside = [png.getvalue(), gif.getvalue(), b"no picture", photos[0].read_bytes()]
    column: list[Any] = [{"bytes": data, "path": None} for data in inside]
    column += [None, {"bytes": None, "path": str(tmp_path / "gone.jpg")}]
    made = datasets.Dataset.from_dict({"image": column, "label": [0] * 6}, features=features())
    data = HuggingFaceImages(made, CROP)
    plan = coordl.DataLoader(data, 4).plan()
    assert "of the files are no" in plan  # half of them
    for workers, cache in ((0, None), (0, "100%"), (1, "100%")):
        loader = coordl.DataLoader(data, 2, on_error="skip", cache=cache, num_workers=workers)
        assert sum(len(labels) for _, labels in loader) == 3
        bad = loader.stats()["epochs"][0]["bad_samples"]
        assert [index for index, _, _ in bad] == [2, 4, 5]
        assert "cannot identify" in bad[0][2] and "'image' is empty" in bad[1][2]
        assert "gone.jpg" in bad[2][2]
    with pytest.raises(ItemError, match=r"sample 2.*cannot identify"):
        data[2]
    with pytest.raises(FileNotFoundError, match=r"sample 5: .*gone\.jpg"):
        data[5]


def test_a_file_that_changed_is_delivered_and_not_held(folder: Path) -> None:
    local = coordl.ImageFolder(folder, CROP)
    column = [path for path, _ in local.samples]
    made = datasets.Dataset.from_dict(
        {"image": column, "label": local.targets}, features=features()
    )
    loader = coordl.DataLoader(HuggingFaceImages(made, CROP), 4, cache="100%", seed=5)
    items = loader._folder_items(coordl.fetch.folder.find_folder(loader.dataset))  # type: ignore[attr-defined]
    assert items.items.keys.any(axis=1).all()
    Path(column[0]).write_bytes(Path(column[1]).read_bytes())
    assert same([*loader], [*coordl.DataLoader(local, 4, seed=5)])
    assert loader.stats()["cache_forms"]["original"] == COUNT - 1


def test_it_travels(rows: Any) -> None:
    data = HuggingFaceImages(rows)
    assert pickle.loads(pickle.dumps(data))[4][0].tobytes() == data[4][0].tobytes()
    assert repr(data) == f"coordl.HuggingFaceImages({COUNT} pictures, column 'image')"


def test_a_cache_is_warmed(rows: Any) -> None:
    data = HuggingFaceImages(rows, CROP)
    cache = coordl.MinIOCache("200%", form="packed")
    done = cache.warm(data)
    assert (done.items, done.held) == (COUNT, COUNT) and cache.stats()["packed_items"] == COUNT
    loader = coordl.DataLoader(data, 4, cache=cache)
    list(loader)
    assert loader.stats()["total"]["hits"] == COUNT


# -- what is refused -----------------------------------------------------------------------------


def test_other_classes_columns_and_transforms_are_refused(rows: Any) -> None:
    with pytest.raises(TypeError, match=r"DatasetDict.*take a split"):
        HuggingFaceImages(datasets.DatasetDict({"train": rows}))
    with pytest.raises(TypeError, match=r"IterableDataset.*streaming=False"):
        HuggingFaceImages(rows.to_iterable_dataset())
    with pytest.raises(ValueError, match=r"'picture' does not exist.*those are: 'image'"):
        HuggingFaceImages(rows, image="picture")
    with pytest.raises(ValueError, match="'label' is none of Image"):
        HuggingFaceImages(rows, image="label")
    with pytest.raises(ValueError, match="no column 'class' for the target; it has 'image'"):
        HuggingFaceImages(rows, target="class")
    with pytest.raises(ValueError, match=r"set_transform.*transform="):
        HuggingFaceImages(rows.with_transform(lambda row: row))


def test_the_package_is_not_imported_for_others() -> None:
    code = (
        "import coordl, sys; from coordl.delivery.route import route_of\n"
        "coordl.DataLoader([1]).plan()\n"
        "print([name for name in ('datasets', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- audio ---------------------------------------------------------------------------------------


@pytest.fixture
def sounds(tmp_path: Path) -> tuple[Path, Any]:
    soundfile = pytest.importorskip("soundfile", reason="needs soundfile (the extra audio)")
    pytest.importorskip("soxr", reason="needs soxr (the extra audio)")
    column = []
    for number in range(6):
        path = tmp_path / "sounds" / "ab"[number // 3] / f"{number}.{('wav', 'flac')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 16_000).astype(np.float32)
        soundfile.write(path, noise, 16_000)
        column.append({"bytes": path.read_bytes(), "path": path.name})
    return tmp_path / "sounds", recordings(column)


def recordings(column: list[dict[str, Any]]) -> Any:
    """(To put in by the Audio feature itself would take torchcodec.)"""
    stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    types = {"audio": stored, "label": datasets.ClassLabel(names=["a", "b"])}
    made = datasets.Dataset.from_dict(
        {"audio": column, "label": [0, 0, 0, 1, 1, 1]}, features=datasets.Features(types)
    )
    return made.cast_column("audio", datasets.Audio())


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [None, "100%"])
def test_audio_is_that_of_the_same_files(
    sounds: tuple[Path, Any], workers: int, cache: str | None
) -> None:
    folder, rows = sounds
    options: dict[str, Any] = {"seconds": 0.25, "sample_rate": 8_000}
    ours = coordl.DataLoader(
        HuggingFaceAudio(rows, **options), 3, seed=2, cache=cache, num_workers=workers
    )
    theirs = coordl.DataLoader(coordl.AudioFolder(folder, **options), 3, seed=2)
    for a, b in zip([*ours, *ours], [*theirs, *theirs], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert "audio is decoded in Python" in ours.plan()


def test_bad_audio_is_named(sounds: tuple[Path, Any]) -> None:
    folder, rows = sounds
    column = [
        {"bytes": path.read_bytes(), "path": path.name} for path in sorted(folder.rglob("*.*"))
    ]
    column[2] = {"bytes": b"x" * 99, "path": "x.wav"}
    data = HuggingFaceAudio(recordings(column), seconds=0.1)
    with pytest.raises(ItemError, match=r"sample 2, x\.wav: cannot decode the audio"):
        list(coordl.DataLoader(data, 3))
    with pytest.raises(ValueError, match="crop is 'random'"):
        HuggingFaceAudio(rows, crop="middle")  # type: ignore[arg-type]
