"""benchmarks/prep.py: the same crops for all, workers that answer, a table that says all."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coordl import transforms

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT))

from benchmarks.peers import rounds, table, worker  # noqa: E402
from benchmarks.peers.boxes import RATIO, SCALE, draw  # noqa: E402
from benchmarks.peers.link import Worker, WorkerError  # noqa: E402
from benchmarks.peers.pillow import Direct, reference  # noqa: E402
from benchmarks.peers.registry import ENTRIES, Entry, entry  # noqa: E402
from benchmarks.peers.variant import levels, load_pictures  # noqa: E402

CPU = min(os.sched_getaffinity(0))
DISTRIBUTION = (SCALE, RATIO)
NEVER = Entry("never", "Never there", "pillow", "NoSuchFactory")


# -------------------------------------------------------------------------------------- the crops


def test_boxes_depend_on_seed_round_and_index_only() -> None:
    assert draw(1, 2, 3, 500, 375) == draw(1, 2, 3, 500, 375)
    drawn = {draw(seed, 2, 3, 500, 375) for seed in range(8)}
    drawn |= {draw(1, round_, 3, 500, 375) for round_ in range(8)}
    drawn |= {draw(1, 2, index, 500, 375) for index in range(8)}
    assert len(drawn) == 22  # the three series share one


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (1024, 40), (40, 1024)])
def test_boxes_lie_within_the_picture(width: int, height: int) -> None:
    for index in range(200):
        box = draw(1, 0, index, width, height)
        assert box.x >= 0 and box.x + box.width <= width and box.width > 0
        assert box.y >= 0 and box.y + box.height <= height and box.height > 0


def test_boxes_have_the_distribution_of_random_resized_crop() -> None:
    torch.manual_seed(1)
    crop, image = transforms.RandomResizedCrop(224), Image.new("L", (1000, 600))
    wanted = np.array([crop.get_params(image, *DISTRIBUTION) for _ in range(3_000)])
    boxes = [draw(1, 0, index, 1000, 600) for index in range(3_000)]
    drawn = np.array([(box.y, box.x, box.height, box.width) for box in boxes])

    deviation = wanted.std(axis=0) / np.sqrt(len(boxes) / 2)
    assert (np.abs(drawn.mean(axis=0) - wanted.mean(axis=0)) < 4 * deviation).all()
    assert drawn.std(axis=0) == pytest.approx(wanted.std(axis=0), rel=0.08)
    assert np.mean([box.flip for box in boxes]) == pytest.approx(0.5, abs=0.04)


# ------------------------------------------------------------------------------------ the workers


def test_pillow_variant_gives_the_reference_pixels(photos: list[Path]) -> None:
    pictures = load_pictures([str(p) for p in photos])
    variant = Direct(pictures)
    for index, picture in enumerate(pictures):
        box = draw(1, 0, index, picture.width, picture.height)
        assert np.array_equal(levels(variant.one(index, box)), reference(picture, box))


def test_worker_answers_every_request_with_one_line(photos: list[Path], tmp_path: Path) -> None:
    pictures = load_pictures([str(p) for p in photos])
    count = rounds.write_reference(pictures, 1, tmp_path / "pillow.npy")
    requests = [
        {"do": "round", "number": 0},
        {"do": "load", "entry": "pillow", "paths": [*map(str, photos)], "seed": 1},
        {"do": "round", "number": 1},
        {"do": "check", "reference": str(tmp_path / "pillow.npy"), "count": count},
        {"do": "stop"},
    ]
    answers = io.StringIO()

    worker.serve(io.StringIO("".join(json.dumps(r) + "\n" for r in requests)), answers)

    early, loaded, done, checked = map(json.loads, answers.getvalue().splitlines())
    assert "nothing loaded" in early["error"]
    assert loaded["same_boxes"] and loaded["clock"] == "thread" and "Pillow" in loaded["versions"]
    assert done["samples"] == 4 and done["cpu_s"] > 0 and done["end_s"] > done["begin_s"]
    assert checked == {"mean": 0.0, "max": 0}


def test_worker_process_keeps_to_its_cpu_and_reports_errors(photos: list[Path]) -> None:
    process = Worker(NEVER, CPU)
    try:
        with pytest.raises(WorkerError, match="KeyError"):
            process.ask(do="load", entry="never", paths=[str(photos[0])], seed=1)
        affinity = Path(f"/proc/{process.process.pid}/status").read_text()
        assert f"Cpus_allowed_list:\t{CPU}\n" in affinity
    finally:
        process.close()
    assert process.process.returncode == 0


def test_dead_worker_is_an_error_with_its_last_words() -> None:
    process = Worker(entry("pillow"), CPU)
    process.process.kill()
    process.process.wait()
    with pytest.raises(WorkerError, match="ended with code -9"):
        process.ask(do="round", number=0)
    process.close()


# ----------------------------------------------------------------------------- rounds and table


def test_driver_measures_ours_and_pillow_and_names_what_is_left_out(
    photos: list[Path], tmp_path: Path
) -> None:
    command = [sys.executable, "benchmarks/prep.py", "--data", str(photos[0].parent), "--rounds"]
    command += ["2", "--only", "cold", "pillow", "packed-avx512", "--malloc", "default"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr

    result = json.loads((tmp_path / "prep.json").read_text())
    (of,) = result["sets"]
    (only,) = of["passes"]
    told = {r["key"]: r for r in only["results"]}
    assert of["photos"] == 4
    assert {"cold", "pillow"} <= set(told)
    assert set(told) | set(result["left_out"]) == {"cold", "pillow", "packed-avx512"}
    for each in told.values():
        assert len(each["one_core"]["rounds"]) == 2
        assert each["one_core"]["p10"] <= each["one_core"]["median"] <= each["one_core"]["p90"]
    assert told["pillow"]["difference"] == {"mean": 0.0, "max": 0}
    if told["cold"]["same_boxes"]:
        assert told["cold"]["difference"]["max"] <= 1
    text = (tmp_path / "prep.md").read_text()
    assert "| Pillow, crop + resize |" in text
    assert result["command"] in text


def test_table_marks_own_crops_missing_antialias_and_reasons() -> None:
    def row(key: str, rate: float, **more: object) -> dict:
        summed = {"median": rate, "p10": rate, "p90": rate, "rounds": [rate]}
        given = {"same_boxes": True, "antialias": True, "facts": {}, "kind": "prep"}
        return {"key": key, "label": key.upper(), "one_core": summed, **given, **more}

    rows = [row("fast", 1000, same_boxes=False, antialias=False), row("stock", 100)]
    rows += [row("recode", 2000, kind="cost")]
    text = table.markdown(
        {
            "question": "How fast?",
            "machine": {
                "cpu": "C",
                "family_model": "1/2",
                "flags": dict.fromkeys(table.machine.FLAGS, False),
                "cpus": 1,
                "kernel": "6",
                "python": "3.11",
                "note": "",
            },
            "rounds": 1,
            "seed": 1,
            "date": "today",
            "sets": [
                {
                    "name": "S",
                    "photos": 1,
                    "mean_kb": 1.0,
                    "mean_mpx": 0.2,
                    "passes": [
                        {"malloc": "default", "results": rows},
                        {"malloc": "raised", "results": [row("stock", 200)]},
                    ],
                }
            ],
            "left_out": {"gone": "no such | library"},
            "versions": {"lib": "1"},
            "command": "python benchmarks/prep.py",
        }
    )
    assert "| FAST ¹ ² | 1,000 | 1,000–1,000 | – | – | – | 5.0 |" in text
    assert "| STOCK | 100 | 100–100 | 200 | – | – | 1.0 |" in text
    assert "| RECODE | 500 | 500–500 |" in text
    assert "| gone | no such / library |" in text


def test_every_entry_has_a_module_and_a_factory_of_its_own_key() -> None:
    assert len({e.key for e in ENTRIES}) == len(ENTRIES)
    for each in ENTRIES:
        source = (ROOT / "benchmarks" / "peers" / f"{each.module}.py").read_text()
        assert f"class {each.factory}(" in source, each.key
