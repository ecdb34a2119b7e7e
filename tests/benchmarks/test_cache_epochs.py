"""benchmarks/cache.py: its arithmetic, its protocol, its table. The runs themselves need root."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent))

from benchmarks import cache
from benchmarks.peers import pictures
from benchmarks.storage.contender import Contender, ContenderError


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.8])
def test_a_simulated_lru_misses_what_theory_says(fraction):
    items = 2000
    missed = cache.simulate_lru([1] * items, fraction * items, epochs=10, seed=3)
    theory = 1 - (fraction + (1 - fraction) * math.log(1 - fraction))  # 1 - h, docs/predict.md
    assert missed == pytest.approx(theory, abs=0.02)


def test_a_simulated_lru_that_holds_everything_misses_nothing():
    assert cache.simulate_lru([3, 1, 2], 6, epochs=5, seed=0) == 0


@pytest.mark.parametrize(("photos", "batch"), [(1200, 60), (64, 64), (97, 64)])
def test_minibatches_divide_the_data_set_where_they_can(photos, batch):
    assert cache.batch_of(photos) == batch


def test_files_are_linked_not_copied_and_gone_afterwards(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    for number in range(5):
        (source / f"{number}.jpg").write_bytes(bytes([number]) * 10)
    with pictures.linked(source, 3, seed=1) as folder:
        paths = list(cache.paths_of(folder))
        assert len(paths) == 3
        assert {Path(path).stat().st_nlink for path in paths} == {2}
    assert not folder.exists()
    assert len(list(source.iterdir())) == 5


def test_a_contender_answers_epoch_by_epoch(tmp_path, photo_folder):
    with Contender(
        sys.executable, "benchmarks.storage.ours", [str(photo_folder), "4", "100%"]
    ) as contender:
        first, second = contender.epoch(), contender.epoch()
    assert first["samples"] == second["samples"] == 8
    assert (first["missed"], second["missed"]) == (8, 0)
    assert first["uncached"] > 0 and second["uncached"] == 0
    assert first["seconds"] > 0


def test_a_contender_that_fails_says_why(tmp_path):
    with pytest.raises(ContenderError, match="nowhere"):
        Contender(sys.executable, "benchmarks.storage.stock", [str(tmp_path / "nowhere"), "4"])


def test_the_table_has_a_row_for_every_run():
    row = {
        "contender": "ours",
        "seconds": 2.0,
        "seconds_range": [1.9, 2.1],
        "device_bytes": 65e6,
        "missed": 0.65,
        "page_cache_bytes": 1e6,
        "most_off": 0.001,
        "resident_before": 0.0,
    }
    result = {
        "question": cache.QUESTION,
        "machine": cache.machine.describe(),
        "photos": 100,
        "bytes": 100e6,
        "device_bytes": 100e6,
        "batch": 50,
        "date": "then",
        "command": "python benchmarks/cache.py",
        "cells": [{"speed": 15e6, "fraction": 0.35, "lru": 0.93, "rows": [row]}],
        "left_out": {"dali": "not here"},
    }
    text = cache.markdown(result)
    assert (
        "| 35% | coordl, never-evict cache | 2.00 (1.90–2.10) | 65.0 | 65.0% | 1.00 | 1% |" in text
    )
    assert "| 35% | exact LRU, simulated | – | – | 93.0% | – | – |" in text
    assert "at most 0.10%" in text
    assert "Left out: dali: not here" in text
