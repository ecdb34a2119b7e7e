"""Data sets nobody knows, in a loader with cache_opens: what is read once, counted, and how."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data

import coordl


class Texts(torch.utils.data.Dataset):
    """Reads with a method of its own; nothing coordl knows."""

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.count = str(root), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        with open(f"{self.root}/{index}.bin", "rb") as file:
            return sum(file.read()) + 0 * index


class Batches(Texts):
    def __getitems__(self, indices: list[int]) -> list[int]:
        return [self[index] for index in indices]


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, root: Path, count: int) -> None:
        self.root, self.count = str(root), count

    def __iter__(self) -> Iterator[int]:
        info = torch.utils.data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for index in range(first, self.count, step):
            yield sum(Path(f"{self.root}/{index}.bin").read_bytes())


SIZE, COUNT = 3000, 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    root.mkdir()
    rng = np.random.default_rng(1)
    for index in range(COUNT):
        (root / f"{index}.bin").write_bytes(rng.bytes(SIZE))
    return root


EPOCH = ("hits", "misses", "served_bytes", "storage_bytes", "admitted_bytes", "bypassed_opens")


def figures(loader: Any, epoch: int) -> tuple[int, ...]:
    return tuple(loader.stats()["epochs"][epoch][name] for name in EPOCH)


@pytest.mark.parametrize("kind", [Texts, Batches, Stream])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_opaque_data_set_reads_each_file_once(kind: Any, workers: int, root: Path) -> None:
    data = kind(root, COUNT)
    expected = sorted(torch.cat(list(torch.utils.data.DataLoader(data, 4))).tolist())
    loader = coordl.DataLoader(data, 4, num_workers=workers, cache="100%", cache_opens=True)
    for _ in range(2):
        assert sorted(torch.cat(list(loader)).tolist()) == expected
    whole = COUNT * SIZE
    assert figures(loader, 0) == (0, COUNT, 0, whole, whole, 0)
    assert figures(loader, 1) == (COUNT, 0, whole, 0, 0, 0)
    assert loader.stats()["cache_bytes"] == whole
    assert f"never-evict cache, 100%: what Python opens to read below {root};" in loader.plan()


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_that_inherit_nothing_serve_and_count_too(start: str, root: Path) -> None:
    loader = coordl.DataLoader(
        Texts(root, COUNT), 4, num_workers=2, multiprocessing_context=start, cache="1MiB",
        cache_opens=True, persistent_workers=True,
    )  # fmt: skip
    for _ in range(2):
        assert sum(len(batch) for batch in loader) == COUNT
    assert figures(loader, 0)[:2] == (0, COUNT)
    assert figures(loader, 1)[:2] == (COUNT, 0)
    loader._iterator._shutdown_workers()  # type: ignore[union-attr]


def test_part_of_a_data_set_is_read_from_storage_each_epoch(root: Path) -> None:
    loader = coordl.DataLoader(
        Texts(root, COUNT), 4, shuffle=True, num_workers=2, cache="50%", cache_opens=True, seed=3
    )
    for _ in range(3):
        list(loader)
    half = COUNT // 2
    for epoch in (1, 2):
        assert figures(loader, epoch)[:4] == (half, half, half * SIZE, half * SIZE)
    total = loader.stats()["total"]
    assert total["misses"] == COUNT + 2 * half and total["bypassed_opens"] == 0


# In a process of its own: torch raises from a signal handler, wherever its process is by then.
KILLED = """
import os, signal, sys
import torch.utils.data
import coordl

class Restless(torch.utils.data.Dataset):
    root = sys.argv[1]
    def __len__(self):
        return 12
    def __getitem__(self, index):
        data = open(f"{self.root}/{index}.bin", "rb").read()
        if index == 5 and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(data)

def epoch(workers, cache):  # collate_fn=list: no tensor is on its way in shared memory
    loader = coordl.DataLoader(Restless(), 1, num_workers=workers, cache=cache, cache_opens=True,
                               collate_fn=list)
    try:
        list(loader)
    except RuntimeError as error:
        print("killed" if "worker" in str(error) else error)
    first = loader.stats()["epochs"][0]
    print(first["hits"], first["misses"], first["admitted_bytes"])
    return loader

held = epoch(1, "1MiB")
epoch(0, "1MiB")
"""


def test_a_killed_worker_loses_no_count_and_breaks_nothing(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root)], capture_output=True, text=True, timeout=120
    )
    left = COUNT - 6
    assert done.stdout == f"killed\n0 6 {6 * SIZE}\n6 {left} {left * SIZE}\n", done.stderr


def test_another_folder_may_be_named(root: Path, tmp_path: Path) -> None:
    class Elsewhere(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, index: int) -> int:
            return len((root / f"{index}.bin").read_bytes())

    with pytest.raises(ValueError, match=r"Elsewhere, has no `root`.*cache_opens='/data/train'"):
        coordl.DataLoader(Elsewhere(), cache="1MiB", cache_opens=True)
    with pytest.raises(FileNotFoundError, match="no folder"):
        coordl.DataLoader(Elsewhere(), cache="1MiB", cache_opens=tmp_path / "none")
    with pytest.raises(ValueError, match="give its size as cache="):
        coordl.DataLoader(Texts(root, COUNT), cache_opens=True)
    loader = coordl.DataLoader(Elsewhere(), cache="1MiB", cache_opens=root)
    list(loader)
    assert figures(loader, 0)[:2] == (0, COUNT)


def test_a_folder_nothing_is_opened_of_is_told(root: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "x").write_bytes(bytes(9000))
    data = Texts(root, COUNT)
    loader = coordl.DataLoader(data, 4, cache="1MiB", cache_opens=tmp_path / "wrong")
    list(loader)
    with pytest.warns(UserWarning, match=r"in 12 samples the data set opened no file below"):
        list(loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(loader)  # once


def test_a_changed_file_is_read_anew_within_an_epoch(root: Path) -> None:
    loader = coordl.DataLoader(Texts(root, COUNT), cache="1MiB", cache_opens=True)
    list(loader)
    (root / "3.bin").write_bytes(b"\1\2")
    assert torch.cat(list(loader)).tolist()[3] == 3
    assert figures(loader, 1)[:2] == (COUNT - 1, 1)


def test_off_by_default(root: Path) -> None:
    loader = coordl.DataLoader(Texts(root, COUNT), cache="1MiB")
    with pytest.warns(UserWarning, match="cache_opens=True"):
        list(loader)
    assert figures(loader, 0) == (None,) * len(EPOCH)


def test_a_loader_with_opens_is_copied_by_its_attributes(root: Path) -> None:
    loader = coordl.DataLoader(Texts(root, COUNT), cache="1MiB", cache_opens=True)
    assert loader.cache_opens is True
    list(loader)
    again = pickle.loads(pickle.dumps(loader))
    list(again)
    assert figures(again, 0)[:2] == (COUNT, 0)


def test_epochs_that_are_over_hold_no_descriptor(root: Path) -> None:
    loader = coordl.DataLoader(Texts(root, COUNT), cache="1MiB", cache_opens=True)
    list(loader)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        list(loader)
    assert len(os.listdir("/proc/self/fd")) == before
    assert [figures(loader, epoch)[0] for epoch in range(6)] == [0] + [COUNT] * 5


def test_auto_is_said_once_it_is_chosen(root: Path) -> None:
    loader = coordl.DataLoader(Texts(root, COUNT), cache="auto", cache_opens=True)
    assert "never-evict cache, auto: what Python opens" in loader.plan()
    list(loader)
    stats = loader.stats()
    assert stats["cache_limit"] and stats["cache_budget"] > 0
    assert f", as {stats['cache_limit']}" in loader.plan()


def test_a_cache_without_a_name_takes_the_folders(root: Path) -> None:
    cache = coordl.MinIOCache("1MiB")
    loader = coordl.DataLoader(Texts(root, COUNT), cache=cache, cache_opens=True)
    assert "cache" in loader.plan()
    list(loader)
    list(loader)
    assert [figures(loader, epoch)[0] for epoch in range(2)] == [0, COUNT]


def test_a_percentage_waits_for_the_data_set_under_the_name_given(root: Path) -> None:
    cache = coordl.MinIOCache("150%", name="t-percent", form="original")
    assert not cache.is_open
    list(coordl.DataLoader(Texts(root, COUNT), cache=cache, cache_opens=True))
    assert cache.name == "t-percent"
    assert cache.stats()["asked_bytes"] == 1.5 * COUNT * SIZE
