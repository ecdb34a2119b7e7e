from __future__ import annotations

import argparse
from importlib.util import find_spec

import pytest

from benchmarks import coordinated


@pytest.mark.skipif(find_spec("torchvision") is None, reason="it reads as torchvision's users do")
@pytest.mark.slow
def test_jobs_of_a_group_prepare_each_sample_once(photo_folder):
    options = argparse.Namespace(batch=4, dtype="uint8", workers=1, rate=0.0)
    figures = coordinated.once("group", 2, photo_folder, options)
    assert figures["samples"] == 2 * 8 and figures["prepared"] == 8
    assert figures["staging_bytes"] > 0
    assert coordinated.once("alone", 2, photo_folder, options)["prepared"] == 2 * 8


def test_the_table_has_rates_of_all_jobs_and_what_was_prepared():
    epochs = [
        {"seconds": s, "samples": 16, "prepared": 8, "cpu_seconds": s, "storage_bytes": 0,
         "staging_bytes": 2_000_000}
        for s in (1.0, 2.0, 4.0)
    ]  # fmt: skip
    row = coordinated.summary(epochs, photos=8)
    assert (row["rate"], row["range"], row["prepared"]) == (8.0, [4.0, 16.0], 1.0)
    result = {
        "question": "q", "photos": 8, "batch": 4, "dtype": "uint8", "workers": 1, "rate": 0,
        "rounds": 3, "date": "d", "command": "c", "rows": [{"kind": "group", "jobs": 2, **row}],
        "machine": coordinated.machine.describe(""),
    }  # fmt: skip
    text = coordinated.markdown(result)
    assert "| 2 | coordl, one group | 8 (4–16) | 2.00 | 1.00 |  | 2 |" in text
