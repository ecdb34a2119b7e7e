from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from benchmarks import end_to_end
from benchmarks.storage.contender import Contender


@pytest.mark.skipif(find_spec("torchvision") is None, reason="it reads as torchvision's users do")
@pytest.mark.parametrize("form", ["none", "packed"])
def test_our_program_delivers_every_sample_in_every_epoch(photo_folder, form):
    program = "benchmarks.loaders.ours"
    with Contender(sys.executable, program, [str(photo_folder), "4", "uint8", form]) as contender:
        epochs = [contender.epoch() for _ in range(2)]
    assert [epoch["samples"] for epoch in epochs] == [8, 8]
    assert all(epoch["cpu_seconds"] >= 0 for epoch in epochs)


def test_rates_are_medians_of_samples_by_seconds():
    epochs = [{"samples": 8, "seconds": s, "cpu_seconds": s} for s in (1.0, 2.0, 4.0)]
    assert end_to_end.rates(epochs) == {"median": 4.0, "range": [2.0, 8.0], "cores": 1.0}


def test_the_table_compares_with_the_best_torch_variant():
    rate = {"median": 100.0, "range": [90.0, 110.0], "cores": 2.0}
    fast = {**rate, "median": 800.0}
    rows = [
        {"key": "pillow", "label": "slow", "first": rate, "later": {**rate, "median": 50.0}},
        {"key": "v2", "label": "best", "first": rate, "later": rate},
        {"key": "packed", "label": "ours", "first": rate, "later": fast},
    ]
    result = {
        "question": "q", "machine": {"cpu": "x"}, "photos": 8, "batch": 4, "date": "d",
        "command": "c", "tables": [{"dtype": "uint8", "rows": rows, "left_out": {"dali": "why"}}],
    }  # fmt: skip
    text = end_to_end.markdown({**result, "machine": end_to_end.machine.describe("")})
    assert "| ours | 100 (90–110) | 1.00 | 800 (90–110) | 8.00 | 2.00 |" in text
    assert "Left out: dali: why" in text
