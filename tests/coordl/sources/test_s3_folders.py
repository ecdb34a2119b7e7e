"""Image folders in S3, against moto's server; skipped where it or s3fs is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from typer.testing import CliRunner

import coordl
from coordl import ItemError
from coordl import transforms as T

moto = pytest.importorskip("moto.server", reason="needs moto[server]")
s3fs = pytest.importorskip("s3fs", reason="needs s3fs")

CROP = T.Compose([T.RandomResizedCrop(32), T.RandomHorizontalFlip(), T.ToTensor()])


@pytest.fixture(scope="module")
def storage() -> Iterator[dict[str, Any]]:
    """Options of an s3fs over a server with a bucket "photos" in it."""
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"},
    }
    fsspec.filesystem("s3", **options).mkdir("photos")
    yield options
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(autouse=True)
def no_reads_left(_arenas: None, reads_ended: None) -> None:
    """Before arenas are counted."""


@pytest.fixture
def folder(storage: dict[str, Any], tmp_path: Path, photos: list[Path]) -> Iterator[Path]:
    """Photographs in two classes, on disk and in the bucket as train/."""
    fs = fsspec.filesystem("s3", **storage)
    for number in range(10):
        path = tmp_path / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photos[number % len(photos)].read_bytes())
        fs.pipe(f"photos/train/{path.relative_to(tmp_path)}", path.read_bytes())
    yield tmp_path
    fs.rm("photos/train", recursive=True)


def s3_folder(storage: dict[str, Any]) -> coordl.ImageFolder:
    return coordl.ImageFolder("s3://photos/train", CROP, storage_options=storage)


@pytest.mark.parametrize(
    ("workers", "start"),
    [(0, None), (1, "fork"), (2, "fork"), pytest.param(1, "spawn", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("cache", [None, "100%"])
def test_an_image_folder_is_the_same_as_from_disk(
    storage: dict[str, Any], folder: Path, workers: int, start: str | None, cache: str | None
) -> None:
    data, local = s3_folder(storage), coordl.ImageFolder(folder, CROP)
    assert data.classes == local.classes and data.targets == local.targets
    options: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": start}
    ours = coordl.DataLoader(data, 4, seed=5, cache=cache, **options)
    theirs = coordl.DataLoader(local, 4, seed=5)
    for (a, b), (c, d) in zip([*ours, *ours], [*theirs, *theirs], strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)
    hits = [epoch["hits"] for epoch in ours.stats()["epochs"]]
    assert hits == ([0, 10] if cache else [0, 0])


def test_an_epoch_asks_twice_of_each_object_and_the_next_nothing(
    storage: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **options: Any) -> Any:
        asked.append(method)
        return await call(self, method, *args, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    loader = coordl.DataLoader(s3_folder(storage), 4, cache="100%")
    asked.clear()
    list(loader)
    assert sorted(asked) == ["get_object"] * 10 + ["head_object"] * 10
    asked.clear()
    list(loader)
    assert asked == []


def test_a_replaced_object_wants_a_new_data_set(storage: dict[str, Any], folder: Path) -> None:
    data = s3_folder(storage)
    fs = fsspec.filesystem("s3", **storage)
    path = data.samples[1][0].removeprefix("s3://")
    old = fs.cat(path)
    fs.pipe(path, fs.cat(data.samples[0][0].removeprefix("s3://"))[: len(old)].ljust(len(old)))
    with pytest.raises(ItemError, match=r"sample 1: cannot read s3://.*make the data set anew"):
        list(coordl.DataLoader(data, 4, cache="100%"))
    fs.rm(path)
    with pytest.raises(FileNotFoundError, match=r"sample 1: cannot read s3://.*moved or removed"):
        list(coordl.DataLoader(data, 4, num_workers=1))
    assert len(s3_folder(storage)) == 9


def test_the_command_warms_a_bucket_by_fsspecs_own_configuration(
    storage: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from coordl.cli import app

    monkeypatch.setitem(fsspec.config.conf, "s3", storage)
    ssd = str(tmp_path / "ssd")
    done = CliRunner().invoke(app, ["warm", "s3://photos/train", "--ssd", ssd])
    assert done.exit_code == 0 and "10 of 10 items of the data set are held" in done.stdout
    done = CliRunner().invoke(app, ["warm", "s3://photos/none", "--ssd", ssd])
    assert done.exit_code == 2 and "cannot read s3://photos/none" in done.output


def test_a_bucket_nobody_lets_us_read_says_check_the_credentials(
    storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(self: Any, *args: Any, **options: Any) -> Any:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refused)
    with pytest.raises(PermissionError, match=r"s3://photos/train: .*Check the credentials"):
        s3_folder(storage)
