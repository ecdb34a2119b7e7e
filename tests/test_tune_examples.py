"""The examples of searches: trials side by side prepare each sample once for all of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
# Epochs must be long against the seconds between the beginnings of Ray's trials.
PICTURES, TRIALS, EPOCHS = 2000, 6, 2


def searched(script: str, photos: list[Path], tmp_path: Path) -> str:
    """What the example prints of a search with two trials at a time."""
    for number in range(PICTURES):
        home = tmp_path / "pictures" / f"class{number % 2}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number % len(photos)], home / f"{number:03}.jpg")
    command = [sys.executable, str(EXAMPLES / script), str(tmp_path / "pictures")]
    options = ["--jobs", "2", "--trials", str(TRIALS), "--epochs", str(EPOCHS)]
    with tempfile.TemporaryDirectory(prefix="coordl-test-", dir="/dev/shm") as shared:
        environment = {**os.environ, "COORDL_SHM_DIR": shared, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        status = [sys.executable, "-m", "coordl.cli", "status"]  # removes what killed jobs left
        subprocess.run(status, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=60)
        assert os.listdir(shared) == []
    return done.stdout


def check(said: str) -> None:
    found = re.search(r"([\d,]+) samples trained on, ([\d,]+) prepared", said)
    assert found and f"\n{TRIALS} trials, " in f"\n{said}", said
    trained, prepared = (int(figure.replace(",", "")) for figure in found.groups())
    assert trained % PICTURES == 0 and trained <= TRIALS * EPOCHS * PICTURES
    # Once for two is a half. Trials do not begin and end together, so some go alone for a while.
    assert trained / 2 <= prepared < 0.8 * trained, said


@pytest.mark.slow
def test_optunas_trials_prepare_each_sample_once(photos: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    check(searched("tune_optuna.py", photos, tmp_path))


@pytest.mark.slow
def test_rays_trials_prepare_each_sample_once(photos: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("ray.tune", reason="ray[tune] is not installed")
    check(searched("tune_ray.py", photos, tmp_path))
