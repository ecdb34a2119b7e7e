"""The example scripts are what a user would write, and differ by what coordl promises."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
STOCK = ROOT / "examples/train_images.py"
COORDL = ROOT / "examples/train_images_coordl.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four real photographs each, for training and for validation."""
    root = tmp_path_factory.mktemp("pictures")
    photos = sorted((ROOT / "tests/data").glob("*.jpg"))
    assert len(photos) >= 2
    for part in ("train", "val"):
        for number, photo in enumerate(photos[:2]):
            folder = root / part / f"class{number}"
            folder.mkdir(parents=True)
            for copy in range(4):
                shutil.copyfile(photo, folder / f"{copy}.jpg")
    return root


def run(script: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script as a user would, on one thread; fails with its output."""
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


SMALL = ("--batch-size", 4, "--image-size", 32, "--seed", 1, "--print-freq", 1)


def test_coordl_script_differs_by_its_import_and_one_argument() -> None:
    changes = [
        line
        for line in difflib.ndiff(STOCK.read_text().splitlines(), COORDL.read_text().splitlines())
        if line[0] in "+-"
    ]
    assert changes == [
        "- from torch.utils.data import DataLoader",
        "+ from coordl import DataLoader",
        '+         cache="65%",',
    ]


@pytest.mark.parametrize("script", [STOCK, COORDL], ids=["stock", "coordl"])
@pytest.mark.parametrize("workers", [0, 2])
def test_script_trains_an_epoch_and_validates(
    script: Path, workers: int, data: Path, tmp_path: Path
) -> None:
    done = run(script, data, "--epochs", 1, "--workers", workers, *SMALL, cwd=tmp_path)

    assert "epoch 0 [1/2]" in done.stdout
    assert "validation  loss" in done.stdout
    state = torch.load(tmp_path / "checkpoint.pt")
    assert state["epoch"] == 1


def test_script_goes_on_from_its_checkpoint(data: Path, tmp_path: Path) -> None:
    run(STOCK, data, "--epochs", 1, "--workers", 0, *SMALL, cwd=tmp_path)

    resumed = ("--resume", "checkpoint.pt", "--checkpoint", "later.pt", "--workers", 0)
    done = run(STOCK, data, "--epochs", 2, *resumed, *SMALL, cwd=tmp_path)

    assert "resumed from checkpoint.pt at epoch 1" in done.stdout
    assert "epoch 0 [" not in done.stdout
    assert torch.load(tmp_path / "later.pt")["epoch"] == 2
    assert torch.load(tmp_path / "checkpoint.pt")["epoch"] == 1


def test_class_folders_alone_are_trained_on_without_validation(data: Path, tmp_path: Path) -> None:
    done = run(STOCK, data / "train", "--epochs", 1, "--workers", 0, *SMALL, cwd=tmp_path)

    assert "epoch 0 [1/2]" in done.stdout
    assert "validation" not in done.stdout
