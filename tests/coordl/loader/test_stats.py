"""stats() for programs and for reading."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from recipe import train_transform

import coordl


def test_stats_are_a_dictionary_that_prints_as_a_table(folder: Path, tmp_path: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    loader = coordl.DataLoader(data, 4, num_workers=2, cache="200%", cache_form="original")
    for _ in range(2):
        list(loader)
    stats = loader.stats()
    assert (
        stats == dict(stats) == json.loads(json.dumps(stats)) == pickle.loads(pickle.dumps(stats))
    )
    assert repr(stats) == repr(dict(stats))
    torch.save(stats, tmp_path / "stats.pt")
    assert torch.load(tmp_path / "stats.pt", weights_only=True) == stats
    heading, first, second, total, cache = str(stats).splitlines()
    assert heading.split()[:6] == ["epoch", "samples", "bad", "wait", "hits", "misses"]
    cells = [line.split() for line in (first, second, total)]
    assert [(row[0], row[1], row[5], row[6]) for row in cells] == [
        ("0", "22", "0", "22"),
        ("1", "22", "22", "0"),
        ("total", "44", "22", "22"),
    ]
    assert len({len(line) for line in (heading, first, second, total)}) == 1
    assert cache.startswith("cache: ") and cache.endswith("; 22 original")


def test_of_a_long_run_the_last_epochs_are_shown_in_80_columns() -> None:
    loader = coordl.DataLoader(list(range(8)), 4)  # type: ignore[arg-type]
    assert str(loader.stats()).splitlines()[-1].split()[:2] == ["total", "0"]
    for _ in range(25):
        list(loader)
    lines = str(loader.stats()).splitlines()
    assert lines[1] == "(15 earlier)"
    assert [line.split()[0] for line in lines[2:]] == [*map(str, range(15, 25)), "total"]
    assert "–" in lines[2]  # nobody counted reads
    assert max(map(len, lines)) <= 80
