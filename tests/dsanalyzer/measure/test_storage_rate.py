"""Storage alone: parts of equal sizes for each depth, and held storage taken for what it is."""

import os
from types import SimpleNamespace

import pytest

from dsanalyzer.measure import alone, storage


def test_every_depth_reads_a_part_like_all_the_others(tmp_path, monkeypatch):
    for number in range(60):
        (tmp_path / f"{number:02}").write_bytes(bytes(100 * (number + 1)))
    parts = []
    deliver = storage.deliver

    def seen(paths, depth, limit_s, cold):
        if cold:
            parts.append(sum(os.path.getsize(path) for path in paths))
        return deliver(paths, depth, limit_s, cold)

    monkeypatch.setattr(storage, "deliver", seen)
    paths = [str(path) for path in tmp_path.iterdir()]
    found = storage.measure({"paths": paths, "depths": [1, 2, 16], "limit_s": 1.0, "seed": 3})

    assert [row["queue_depth"] for row in found["cold"]] == [1, 2, 16]
    assert max(parts) / min(parts) < 1.08
    assert sum(row["samples"] for row in found["cold"]) == 60


def test_reads_are_told_by_size_of_the_item():
    reads = [(size, size / 1e6) for size in (300, 100, 200, 600, 500, 400)]

    classes = storage.by_size(reads)
    assert [one["item_bytes"] for one in classes] == [150, 350, 550]
    assert [one["read_s"] for one in classes] == pytest.approx([150e-6, 350e-6, 550e-6])
    assert storage.by_size(reads[:1]) == [{"item_bytes": 300, "read_s": pytest.approx(300e-6)}]
    assert storage.by_size([]) == []


@pytest.mark.parametrize(
    ("method", "reached", "held"),
    [
        ("blkio cgroup", 21e6, 20e6),  # a tenth of a second went through at once
        ("blkio cgroup", 19e6, 20e6),
        ("blkio cgroup", 12e6, 12e6),  # the disk itself is slower
        ("pacing", 300e6, 20e6),  # which did not hold the reader
        ("pacing", 12e6, 12e6),
    ],
)
def test_storage_that_reached_its_limit_has_that_rate(method, reached, held):
    row = {
        "bytes": 100,
        "read_bytes": 125,  # of whole pages
        "bytes_per_s": reached / 1.25,
        "samples_per_s": reached / 1e5,
        "slices": [reached / 1e5] * 3,
        "by_size": [],
    }
    alone.hold(row, SimpleNamespace(bytes_per_s=20e6, method=method))

    assert row["samples_per_s"] == pytest.approx(held / 1e5)
    assert row["bytes_per_s"] == pytest.approx(held / 1.25)
    assert row["slices"][0] == pytest.approx(held / 1e5)
