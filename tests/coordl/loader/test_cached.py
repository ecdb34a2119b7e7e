"""The cache under a loader: what is admitted is never read again, in any process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe import train_transform

import coordl
from coordl import _native

pytestmark = pytest.mark.usefixtures("arenas")
_opened: list[str] | None = None


def _hook(event: str, arguments: tuple) -> None:
    if _opened is not None and event == "open" and str(arguments[0]).endswith(".jpg"):
        _opened.append(str(arguments[0]))


sys.addaudithook(_hook)  # hooks cannot be removed: this one sleeps between tests


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Pictures that were opened, as a profiler's audit hook sees them."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


def folder_bytes(data: coordl.ImageFolder) -> int:
    return sum(os.path.getsize(path) for path, _ in data.samples)


def epochs(loader: coordl.DataLoader, count: int) -> list[dict[str, Any]]:
    for _ in range(count):
        for _ in loader:
            pass
    return list(loader.stats()["epochs"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_of_everything_reads_each_file_once(
    folder: Path, opened: list[str], workers: int
) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 4, shuffle=True, num_workers=workers, cache="100%")
    first, second = epochs(loader, 2)
    assert (first["hits"], first["misses"]) == (0, 22)
    assert first["storage_bytes"] == first["admitted_bytes"] == folder_bytes(data)
    assert (second["hits"], second["misses"], second["storage_bytes"]) == (22, 0, 0)
    assert sorted(opened) == sorted(path for path, _ in data.samples)
    assert loader.stats()["cache_bytes"] == folder_bytes(data)


def test_epochs_after_the_first_read_exactly_what_did_not_fit(
    folder: Path, opened: list[str]
) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 4, shuffle=True, num_workers=2, cache="60%")
    first, *later = epochs(loader, 4)
    assert first["storage_bytes"] == folder_bytes(data)
    assert 0 < first["admitted_bytes"] <= 0.6 * folder_bytes(data)
    uncached = folder_bytes(data) - first["admitted_bytes"]
    assert [epoch["storage_bytes"] for epoch in later] == [uncached] * 3
    assert len(opened) == sum(epoch["misses"] for epoch in (first, *later))


def test_cached_pixels_are_the_pixels(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    plain = list(coordl.DataLoader(data, 4, seed=1))
    loader = coordl.DataLoader(data, 4, seed=1, cache="100%")
    cold = list(loader)
    warm = list(coordl.DataLoader(data, 4, seed=1, cache="100%"))
    for (a, _), (b, _), (c, _) in zip(plain, cold, warm, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_loaders_of_one_root_share_one_arena(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    first = coordl.DataLoader(data, 4, cache="100%")
    epochs(first, 1)
    part = torch.utils.data.Subset(coordl.ImageFolder(folder, train_transform()), range(5))
    second = coordl.DataLoader(part, 4, cache="100%", num_workers=1)
    (figures,) = epochs(second, 1)
    assert (figures["hits"], figures["misses"]) == (5, 0)


def test_a_given_cache_object_serves_as_well(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    with coordl.MinIOCache("1MiB", name="mine") as cache:
        loader = coordl.DataLoader(data, 4, cache=cache)
        assert loader.cache is cache
        assert epochs(loader, 2)[1]["hits"] > 0
        assert cache.stats()["items"] > 0


def test_a_kept_cache_serves_the_next_loader_from_its_first_epoch(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    for hits in (0, len(data)):
        with coordl.MinIOCache("64MiB", name="kept", persist=True) as cache:
            assert epochs(coordl.DataLoader(data, 4, cache=cache), 1)[0]["hits"] == hits
    _native.clear_arena("kept")


def test_a_budget_that_does_not_apply_is_told_at_the_users_line(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    first = coordl.DataLoader(data, 4, cache="50%")
    next(iter(first))
    with pytest.warns(UserWarning, match="One arena has one budget") as told:
        next(iter(coordl.DataLoader(data, 4, cache="10%")))
    assert [warning.filename for warning in told] == [__file__]


def test_a_changed_file_is_a_new_item(folder: Path, photos: list[Path]) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 22, seed=1, cache=100 << 20)
    epochs(loader, 1)
    path = Path(data.samples[3][0])
    other = next(p for p in photos if p.read_bytes() != path.read_bytes())
    path.write_bytes(other.read_bytes())
    (images, _), figures = next(iter(loader)), loader.stats()["epochs"][1]
    assert (figures["hits"], figures["misses"]) == (21, 1)
    fresh = coordl.DataLoader(data, 22, seed=1)
    next(iter(fresh))  # epoch 0
    assert torch.equal(images, next(iter(fresh))[0])


READER = """
import sys, coordl
from recipe import train_transform
loader = coordl.DataLoader(coordl.ImageFolder(sys.argv[1], train_transform()), 4, cache="100%")
for _ in range(int(sys.argv[2])):
    for _ in loader: pass
print(loader.stats()["epochs"][0]["hits"], loader.stats()["epochs"][0]["misses"], flush=True)
"""


def reader(folder: Path, epochs: int, more: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER + more, str(folder), str(epochs)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )


def test_processes_share_the_arena(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    mine = coordl.DataLoader(data, 4, cache="100%")
    epochs(mine, 1)
    other = reader(folder, 1)
    assert other.communicate(timeout=120)[0] == "22 0\n"


def test_what_a_killed_process_leaves_is_reaped(folder: Path, arenas: Path) -> None:
    killed = reader(folder, 1, "import signal\nsignal.pause()\n")
    assert killed.stdout is not None and killed.stdout.readline() == "0 22\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=120)
    next_one = reader(folder, 1)
    assert next_one.communicate(timeout=120)[0] == "0 22\n"  # nothing of the dead is trusted
    # and the fixture proves that the directory is empty


class Grey:
    """A transform coordl does not know."""

    def __call__(self, picture: Any) -> torch.Tensor:
        return torch.tensor(picture.convert("L").resize((8, 8)).getpixel((3, 3)))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_python_workers_read_through_the_cache(folder: Path, start: str) -> None:
    data = coordl.ImageFolder(folder, Grey())
    loader = coordl.DataLoader(
        data, 4, num_workers=1, cache="100%", multiprocessing_context=start, seed=1
    )
    expected = [images.tolist() for images, _ in torch.utils.data.DataLoader(data, 4)]
    assert [images.tolist() for images, _ in loader] == expected
    assert loader.stats()["cache_bytes"] == folder_bytes(data)
    assert [(e["hits"], e["misses"]) for e in loader.stats()["epochs"]] == [(0, len(data))]
    alone = coordl.DataLoader(data, 4, cache="100%")
    (figures,) = epochs(alone, 1)
    assert (figures["hits"], figures["misses"]) == (22, 0)


class Squares(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        return index * index


def test_a_cache_that_cannot_serve_says_so_once_and_torch_runs() -> None:
    loader = coordl.DataLoader(Squares(), 3, cache="1MiB")
    with pytest.warns(UserWarning, match=r"cannot serve here: the data set is a .*Squares"):
        batches = list(loader)
    assert [batch.tolist() for batch in batches] == [[0, 1, 4], [9, 16, 25]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(loader)


def test_missing_files_elsewhere_do_not_stop_a_subset(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    os.unlink(data.samples[20][0])
    part = torch.utils.data.Subset(data, range(8))
    assert len(list(coordl.DataLoader(part, 4, cache="50%"))) == 2


def test_forked_processes_share_what_the_parent_cached(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 4, cache="100%")
    epochs(loader, 1)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_expect_hits, args=(loader,))
    child.start()
    child.join(120)
    assert child.exitcode == 0


def _expect_hits(loader: coordl.DataLoader) -> None:
    for _ in loader:
        pass
    assert loader.stats()["epochs"][1]["hits"] == 22
