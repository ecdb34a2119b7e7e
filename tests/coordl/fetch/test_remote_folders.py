"""Image folders by URL: the same samples as from disk, from whichever storage fsspec opens."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec.asyn
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

import coordl
from coordl import ItemError
from coordl import transforms as T
from coordl.cli import app
from coordl.fetch import objects
from coordl.fetch.retry import Retry
from coordl.staging import paths

if TYPE_CHECKING:
    from moody_server import MoodyServer

QUICK = Retry(attempts=4, first_s=0.001, longest_s=0.01)
CROP = T.Compose([T.RandomResizedCrop(32), T.RandomHorizontalFlip(), T.ToTensor()])


@pytest.fixture(scope="module", autouse=True)
def event_loop() -> None:
    fsspec.asyn.get_loop()  # fsspec starts it once and keeps it


@pytest.fixture(autouse=True)
def no_reads_left(shm_dir: Path, reads_ended: None) -> None:
    """Before arenas and descriptors are counted."""


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    """14 photographs in 3 classes, some deeper, and what is no picture or in no class."""
    root = tmp_path / "train"
    for number in range(14):
        parts = [f"class{number % 3}", *["deeper", "x-y", "x"][: number % 4], f"{number:02}.JPG"]
        home = root.joinpath(*parts[:-1])
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number % len(photos)], home / parts[-1])
    (root / "class1" / "notes.txt").write_text("no picture")
    (root / "list.csv").write_text("no class")
    return root


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def put(memory: Any, folder: Path) -> str:
    for path in files(folder):
        memory.pipe(f"/pictures/train/{path.relative_to(folder)}", path.read_bytes())
    return "memory://pictures/train"


def serve(server: MoodyServer, folder: Path) -> str:
    """Its files, and pages that link to them as web servers list folders."""
    for path in files(folder):
        server.objects[f"/train/{path.relative_to(folder)}"] = path.read_bytes()
    for home in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        links = [f'<a href="{x.name}{"/" * x.is_dir()}">{x.name}</a>' for x in home.iterdir()]
        below = "".join(f"/{part}" for part in home.relative_to(folder).parts)
        server.objects[f"/train{below}"] = "\n".join(links).encode()
    return f"{server.url}/train"


def zipped(folder: Path) -> str:
    archive = folder.parent / "train.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in files(folder):
            out.write(path, f"all/train/{path.relative_to(folder)}")
    return f"zip://all/train::file://{archive}"


@pytest.fixture(params=["memory", "file", "http", "zip", "simplecache"])
def url(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The folder by URL, from several storages."""
    kind = request.param
    if kind == "memory":
        yield put(request.getfixturevalue("memory"), folder)
    elif kind == "http":
        yield serve(request.getfixturevalue("server"), folder)
    elif kind == "zip":
        yield zipped(folder)
        fsspec.get_filesystem_class("zip").clear_instance_cache()
    else:
        yield {"file": "file://", "simplecache": "simplecache::file://"}[kind] + str(folder)
        fsspec.get_filesystem_class("simplecache").clear_instance_cache()


def names(data: Any) -> list[tuple[str, int]]:
    return [
        (path.partition("train/")[2].partition("::")[0], target) for path, target in data.samples
    ]


def same(ours: list[Any], theirs: list[Any]) -> bool:
    assert len(ours) == len(theirs) > 0
    return all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(ours, theirs, strict=True)
    )


def expected(folder: Path, seed: int = 5) -> list[Any]:
    """A minibatch of 4 each, twice, from disk, by native threads."""
    loader = coordl.DataLoader(coordl.ImageFolder(folder, CROP), 4, seed=seed, num_workers=1)
    return [batch for _ in range(2) for batch in loader]


# -- the same as from disk -------------------------------------------------------------------


def test_classes_order_and_pictures_are_those_of_a_local_folder(url: str, folder: Path) -> None:
    local, remote = coordl.ImageFolder(folder), coordl.ImageFolder(url)
    assert names(remote) == names(local) and remote.targets == local.targets
    assert (remote.classes, remote.class_to_idx) == (local.classes, local.class_to_idx)
    assert all(remote[i][0].tobytes() == local[i][0].tobytes() for i in (0, 5, 13))
    with fsspec.open(remote.samples[3][0]) as file:  # complete URLs, for whoever wants them
        assert file.read() == Path(local.samples[3][0]).read_bytes()


@pytest.mark.parametrize("cache", [None, "100%"])
def test_minibatches_are_those_of_a_local_folder(url: str, folder: Path, cache: str | None) -> None:
    loader = coordl.DataLoader(coordl.ImageFolder(url, CROP), 4, seed=5, cache=cache)
    assert same([batch for _ in range(2) for batch in loader], expected(folder))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("cache", [None, "100%", "40%"])
def test_workers_change_nothing(memory: Any, folder: Path, workers: int, cache: str | None) -> None:
    data = coordl.ImageFolder(put(memory, folder), CROP)
    loader = coordl.DataLoader(data, 4, seed=5, num_workers=workers, cache=cache)
    assert same([batch for _ in range(2) for batch in loader], expected(folder))


SPAWN = pytest.param("spawn", marks=pytest.mark.slow)  # a new process imports everything
FORKSERVER = pytest.param("forkserver", marks=pytest.mark.slow)


@pytest.mark.parametrize("start", ["fork", SPAWN, FORKSERVER])
def test_every_way_to_start_workers_reads_over_http(
    server: MoodyServer, folder: Path, start: str
) -> None:
    data = coordl.ImageFolder(serve(server, folder), CROP)
    data[0]  # the file system and its event loop were used here before
    loader = coordl.DataLoader(
        data, 4, seed=5, num_workers=1, cache="100%", multiprocessing_context=start
    )
    first = list(loader)
    asked = len(server.requests)
    assert same(first + list(loader), expected(folder))
    assert len(server.requests) == asked  # what is held is not asked for again
    del loader, first
    if start == "forkserver":
        from multiprocessing import forkserver

        forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.mark.parametrize("start", [None, "fork", SPAWN])
def test_a_stock_loader_takes_it(server: MoodyServer, folder: Path, start: str | None) -> None:
    crop = T.Compose([T.CenterCrop(32), T.ToTensor()])
    options: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": start} if start else {}
    stock = torch.utils.data.DataLoader
    ours = list(stock(coordl.ImageFolder(serve(server, folder), crop), 4, **options))
    assert same(ours, list(stock(coordl.ImageFolder(folder, crop), 4)))


def test_python_transforms_and_prep_python_read_through_the_cache(
    memory: Any, folder: Path
) -> None:
    url = put(memory, folder)
    for transform, prep in ((T.Compose([T.CenterCrop(8), T.ToTensor(), torch.neg]), "auto"),
                            (CROP, "python")):  # fmt: skip
        batches = []
        for root in (url, folder):
            loader = coordl.DataLoader(
                coordl.ImageFolder(root, transform), 4, seed=2, prep=prep, cache="100%"
            )
            batches.append([*loader, *loader])
            assert [epoch["hits"] for epoch in loader.stats()["epochs"]] == [0, 14]
        assert same(*batches)


def test_a_subset_and_an_edited_list_of_samples_keep_their_identities(
    server: MoodyServer, folder: Path
) -> None:
    data = coordl.ImageFolder(serve(server, folder), CROP)
    local = coordl.ImageFolder(folder, CROP)
    for one in (data, local):
        one.samples = one.samples[::-2]
    ours = coordl.DataLoader(torch.utils.data.Subset(data, [3, -1, 0]), 2, seed=1, cache="100%")
    theirs = coordl.DataLoader(torch.utils.data.Subset(local, [3, -1, 0]), 2, seed=1)
    assert same([*ours, *ours], [*theirs, *theirs])
    assert [epoch["misses"] for epoch in ours.stats()["epochs"]] == [3, 0]
    assert sum(server.gets(path) for path in server.objects if path.endswith(".JPG")) == 3


def test_samples_in_shared_arrays_are_read_alike(
    memory: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "WORTH_IT", 1)
    url = put(memory, folder)
    listed = coordl.ImageList(coordl.ImageFolder(url).samples, CROP)
    for data in (coordl.ImageFolder(url, CROP), listed):
        loader = coordl.DataLoader(data, 4, seed=5, num_workers=1, cache="100%")
        assert same([*loader, *loader], expected(folder))
    plain = coordl.DataLoader(listed, 4, seed=5, num_workers=1, prep="python")
    assert len(list(plain)) == 4


# -- what is asked of the storage ------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_reads_are_counted_in_this_process_and_in_workers(
    memory: Any, folder: Path, workers: int
) -> None:
    data = coordl.ImageFolder(put(memory, folder), CROP)
    loader = coordl.DataLoader(data, 4, num_workers=workers, cache="100%")
    size = sum(path.stat().st_size for path in folder.rglob("*.JPG"))
    for _ in range(2):
        list(loader)
    first, second = loader.stats()["epochs"]
    assert (first["hits"], first["misses"], first["storage_bytes"]) == (0, 14, size)
    assert first["admitted_bytes"] == size and first["fetch_s"] > 0
    assert (second["hits"], second["misses"], second["storage_bytes"]) == (14, 0, 0)


class Elsewhere(MemoryFileSystem):
    """The file system in memory, under another protocol."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix(f"{cls.protocol}:/"))


class Meeting(Elsewhere):
    """Reads wait for each other: none returns before `together` of them are under way."""

    protocol = "meeting"
    together = threading.Barrier(4, timeout=60)

    def cat_file(self, path: str, *args: Any, **options: Any) -> bytes:
        self.together.wait()
        return super().cat_file(path, *args, **options)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_minibatch_is_fetched_all_at_once(
    memory: Any, folder: Path, workers: int, seed: int | None
) -> None:
    fsspec.register_implementation("meeting", Meeting, clobber=True)
    put(memory, folder)
    data = coordl.ImageFolder("meeting://pictures/train", CROP)
    part = torch.utils.data.Subset(data, range(12))
    loader = coordl.DataLoader(part, 4, num_workers=workers, seed=seed)
    assert len(list(loader)) == 3
    del loader
    Meeting.clear_instance_cache()


def test_threads_that_read_ahead_are_not_inherited_and_end(
    in_fork: Callable[[Callable[[], object]], int],
) -> None:
    from coordl.fetch.ahead import ReadAhead

    def read(ahead: ReadAhead[int]) -> list[int]:
        with ahead.of([1, 2, 3], lambda row: 10 * row):
            futures = [ahead.take(row) for row in (3, 1, 2)]
            assert ahead.take(1) is None
            return [future.result(timeout=60) for future in futures if future is not None]

    def ours() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name.startswith("coordl-ahead")]

    ahead: ReadAhead[int] = ReadAhead(2)
    assert read(ahead) == [30, 10, 20] and 1 <= len(ours()) <= 2
    assert in_fork(lambda: None if read(ahead) == [30, 10, 20] else os._exit(9)) == 0  # noqa: F821
    threads = ours()
    del ahead
    gc.collect()
    for thread in threads:
        thread.join(timeout=60)
    assert ours() == []


def test_an_arena_is_named_by_storage_and_root(memory: Any, folder: Path) -> None:
    url = put(memory, folder)
    first = coordl.DataLoader(coordl.ImageFolder(url, CROP), 4, cache="65%")
    list(first)
    again = coordl.DataLoader(coordl.ImageFolder(url + "/", CROP), 4, cache="65%")
    list(again)
    total = sum(path.stat().st_size for path in folder.rglob("*.JPG"))
    assert again.stats()["cache_budget"] == pytest.approx(0.65 * total, abs=4096)
    held = first.stats()["total"]["admitted_bytes"]
    assert 0 < held <= 0.65 * total
    assert again.stats()["total"]["storage_bytes"] == total - held
    names = {
        coordl.ImageFolder(root).objects.cache_name  # type: ignore[union-attr]
        for root in (url, f"file://{folder}", f"file://{folder}/", f"local://{folder}")
    }
    assert len(names) == 3


# -- objects that change, are missing, or may not be read ------------------------------------


def quick(data: Any) -> Any:
    data.objects.retry = QUICK
    return data


def stale(server: MoodyServer, folder: Path) -> tuple[Any, str, str]:
    """A data set; the server's path and the URL of its sample 2."""
    data = quick(coordl.ImageFolder(serve(server, folder), CROP))
    url = data.samples[2][0]
    return data, url.removeprefix(server.url), url


def test_an_object_replaced_since_it_was_listed_is_an_error_and_never_held(
    memory: Any, folder: Path
) -> None:
    class Listing(Elsewhere):
        """Its listings have etags, as S3's do."""

        protocol = "listing"

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            found = super().info(path, **options)
            if found["type"] == "file":
                found["etag"] = str(hash(self.store[found["name"]].getvalue()))
            return found

        def find(self, path: str, *args: Any, **options: Any) -> dict[str, Any]:
            return {name: self.info(name) for name in super().find(path)}

    fsspec.register_implementation("listing", Listing, clobber=True)
    put(memory, folder)
    data = quick(coordl.ImageFolder("listing://pictures/train", CROP))
    url = data.samples[2][0]
    path = url.removeprefix("listing://")
    old = memory.cat(path)
    memory.pipe(path, old[:-1] + b"x")  # as long as before
    loader = coordl.DataLoader(data, 4, cache="100%")
    with pytest.raises(ItemError, match=r"sample 2: .*another object.*make the data set anew"):
        next(iter(loader))
    memory.pipe(path, old + b"x")  # longer
    with pytest.raises(ItemError, match=r"sample 2: .*make the data set anew") as caught:
        next(iter(loader))
    assert (caught.value.index, caught.value.path) == (2, url)
    assert loader.stats()["cache_forms"]["original"] == 3  # the rest of the minibatch
    renewed = coordl.DataLoader(coordl.ImageFolder("listing://pictures/train", CROP), 4,
                                cache="100%")  # fmt: skip
    assert len(list(renewed)) == 4 and renewed.stats()["total"]["hits"] == 3
    memory.pipe(path, old)
    list(renewed)  # what is held is what was listed
    assert renewed.stats()["epochs"][1]["hits"] == 14
    del loader, renewed, caught
    Listing.clear_instance_cache()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [None, "100%"])
def test_a_missing_object_is_named_at_its_place(
    server: MoodyServer, folder: Path, workers: int, cache: str | None
) -> None:
    data, path, _ = stale(server, folder)
    del server.objects[path]
    loader = coordl.DataLoader(data, 2, num_workers=workers, cache=cache)
    batches = iter(loader)
    assert len(next(batches)) == 2
    with pytest.raises(FileNotFoundError, match=r"sample 2: cannot read http.*moved or removed"):
        next(batches)
    assert len(list(batches)) == 5  # as torch goes on


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("seed", [None, 4])
def test_on_error_is_as_with_files(
    server: MoodyServer, folder: Path, workers: int, seed: int | None
) -> None:
    data, path, url = stale(server, folder)
    del server.objects[path]
    local = coordl.ImageFolder(folder, CROP)
    Path(local.samples[2][0]).unlink()
    options: dict[str, Any] = {"num_workers": workers, "seed": seed, "on_error": "skip"}
    ours = coordl.DataLoader(data, 4, **options)
    theirs = coordl.DataLoader(local, 4, **options)
    batches = [list(ours), list(theirs)]
    assert [labels.tolist() for _, labels in batches[0]] == [
        labels.tolist() for _, labels in batches[1]
    ]
    assert seed is None or same(*batches)
    (bad,) = ours.stats()["epochs"][0]["bad_samples"]
    assert bad[:2] == (2, url) and "moved or removed" in bad[2]
    replaced = coordl.DataLoader(data, 4, on_error=lambda error: (torch.ones(3, 32, 32), 9))
    assert next(iter(replaced))[1].tolist()[2] == 9


def test_without_permission_the_credentials_are_the_advice(
    server: MoodyServer, folder: Path
) -> None:
    data, path, url = stale(server, folder)
    server.moods[path] = [403]
    with pytest.raises(PermissionError, match=rf"sample 2: cannot read {url}: .*credentials"):
        next(iter(coordl.DataLoader(data, 4)))
    server.moods["/train"] = [403]
    with pytest.raises(PermissionError, match=r"cannot read http\S+/train: .*credentials"):
        coordl.ImageFolder(f"{server.url}/train")


def test_a_folder_that_cannot_be_listed_is_no_smaller_data_set(
    server: MoodyServer, folder: Path
) -> None:
    url = serve(server, folder)
    server.moods["/train/class1"] = [403]
    with pytest.raises(PermissionError, match="credentials"):
        coordl.ImageFolder(url)


@pytest.mark.parametrize("mood", [503, "cut", "reset"])
def test_temporary_errors_are_tried_again(
    server: MoodyServer, folder: Path, mood: int | str
) -> None:
    data, path, _ = stale(server, folder)
    server.moods[path] = [mood, mood]
    loader = coordl.DataLoader(data, 4, seed=5, cache="100%")
    assert same([*loader, *loader], expected(folder)) and server.gets(path) == 3


def test_what_nothing_identifies_is_read_each_time_with_a_warning(
    server: MoodyServer, folder: Path
) -> None:
    server.etags = False
    loader = coordl.DataLoader(
        coordl.ImageFolder(serve(server, folder), CROP), 4, seed=5, cache="100%"
    )
    with pytest.warns(UserWarning, match="14 of 14 objects of http.*holds none.*no etag"):
        first = list(loader)
    assert same(first + list(loader), expected(folder))
    assert loader.stats()["total"]["misses"] == 28 and loader.stats()["total"]["hits"] == 0


# -- what is wrong with the root -------------------------------------------------------------


def test_roots_that_hold_no_data_set_say_why(memory: Any, folder: Path) -> None:
    url = put(memory, folder)
    with pytest.raises(FileNotFoundError, match=r"memory://nowhere.*moved or removed"):
        coordl.ImageFolder("memory://nowhere")
    with pytest.raises(NotADirectoryError, match=r"list\.csv"):
        coordl.ImageFolder(f"{url}/list.csv")
    with pytest.raises(FileNotFoundError, match=r"no class folders.*<class>/<picture>\.jpg"):
        coordl.ImageFolder(f"{url}/class0/deeper/x-y/x")
    (folder / "bees").mkdir()
    with pytest.raises(FileNotFoundError, match=r"1 class folder\(s\) .*: bees\."):
        coordl.ImageFolder(f"file://{folder}")
    with pytest.raises(ValueError, match="storage_options are for fsspec's URLs"):
        coordl.ImageFolder(folder, storage_options={"key": "x"})
    with pytest.raises(ValueError, match="nothing"):
        coordl.ImageFolder("nothing://a/b")


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImportError, match=r"s3://b/t is read through fsspec.*\[remote\]"):
        coordl.ImageFolder("s3://b/t")


def test_native_threads_are_refused_with_the_reason(memory: Any, folder: Path) -> None:
    data = coordl.ImageFolder(put(memory, folder), CROP)
    with pytest.raises(ValueError, match="objects come through fsspec"):
        coordl.DataLoader(data, prep="native")
    plan = coordl.DataLoader(data, 4).plan()
    assert "objects come through fsspec" in plan and "after a native pass" in plan
    assert "objects of memory://pictures/train, 16 at a time" in plan


# -- lists, audio, warming -------------------------------------------------------------------


@pytest.mark.parametrize("cache", [None, "100%"])
def test_a_list_of_urls_or_of_files_is_a_data_set(
    server: MoodyServer, folder: Path, cache: str | None
) -> None:
    remote = coordl.ImageFolder(serve(server, folder))
    local = coordl.ImageFolder(folder)
    wanted = expected(folder)
    for samples in (remote.samples, local.samples, [(Path(p), t) for p, t in local.samples]):
        data = coordl.ImageList(samples, CROP)
        loader = coordl.DataLoader(data, 4, seed=5, cache=cache)
        assert same([*loader, *loader], wanted)
        assert not cache or loader.stats()["epochs"][1]["hits"] == 14
    assert coordl.DataLoader(coordl.ImageList(local.samples, CROP), 4).plan().count("native pass")
    assert data[3][1] == local.samples[3][1]
    plain = coordl.ImageList(remote.samples)
    assert plain[4][0].tobytes() == local[4][0].tobytes()


def test_lists_that_cannot_be_say_why(memory: Any) -> None:
    with pytest.raises(ValueError, match="the list of samples is empty"):
        coordl.ImageList([])
    for other in ("/x/2.jpg", "file:///x/2.jpg"):
        with pytest.raises(ValueError, match=rf"memory://x/1.jpg and {other} are not of one"):
            coordl.ImageList([("memory://x/1.jpg", 0), (other, 1)])
    with pytest.raises(ValueError, match="are not of one storage"):
        coordl.ImageList([("/x/1.jpg", 0), ("memory://x/2.jpg", 1)])
    with pytest.raises(FileNotFoundError, match="sample 1: cannot read memory://x/none"):
        coordl.ImageList([("memory://x/1.jpg", 0), ("memory://x/none", 1)])[1]


@pytest.mark.parametrize("cache", [None, "100%"])
def test_audio_folders_by_url(memory: Any, tmp_path: Path, cache: str | None) -> None:
    soundfile = pytest.importorskip("soundfile", reason="needs soundfile (the extra audio)")
    for number in range(4):
        home = tmp_path / "sounds" / "ab"[number % 2]
        home.mkdir(parents=True, exist_ok=True)
        soundfile.write(home / f"{number}.wav", torch.rand(4000).numpy(), 8000)
    put(memory, tmp_path / "sounds")
    ours = coordl.AudioFolder("memory://pictures/train", seconds=0.25, crop="center")
    theirs = coordl.AudioFolder(tmp_path / "sounds", seconds=0.25, crop="center")
    assert all(torch.equal(ours[i][0], theirs[i][0]) for i in range(4))
    (one,) = coordl.DataLoader(ours, 4, cache=cache)
    (other,) = coordl.DataLoader(theirs, 4)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    memory.rm("/pictures/train/a/2.wav")
    with pytest.raises(FileNotFoundError, match=r"sample 1: cannot read memory://.*a/2\.wav"):
        ours[1]


def test_a_cache_is_warmed_from_remote_storage(memory: Any, folder: Path) -> None:
    data = coordl.ImageFolder(put(memory, folder), CROP)
    memory.rm(data.samples[2][0].removeprefix("memory://"))
    cache = coordl.MinIOCache("200%", form="packed")
    done = cache.warm(data, workers=3)
    assert (done.items, done.held) == (14, 13)
    assert [error.index for error in done.failed] == [2]
    assert cache.stats()["packed_items"] == 13
    loader = coordl.DataLoader(data, 4, cache=cache, on_error="skip")
    list(loader)
    assert (loader.stats()["total"]["hits"], loader.stats()["total"]["misses"]) == (13, 1)


def test_the_command_warms_a_url(folder: Path, tmp_path: Path) -> None:
    ssd = ["--ssd", str(tmp_path / "ssd")]
    done = CliRunner().invoke(app, ["warm", f"file://{folder}", *ssd])
    assert done.exit_code == 0, done.output
    assert "14 of 14 items of the data set are held" in done.stdout
    missing = CliRunner().invoke(app, ["warm", "memory://nowhere", *ssd])
    assert missing.exit_code == 2 and "memory://nowhere" in missing.output


def test_a_read_is_made_once_where_a_sampler_names_an_object_twice(
    server: MoodyServer, folder: Path
) -> None:
    data, path, _ = stale(server, folder)
    loader = coordl.DataLoader(data, 4, sampler=[2, 2, 1, 2], seed=5, cache="100%")
    (batch,) = loader
    assert torch.equal(batch[0][0], batch[0][1]) and server.gets(path) == 1


def test_threads_are_as_many_as_said() -> None:
    assert objects.THREADS == 16
