"""The example of Ray Train: nodes of a cluster that share their caches."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples/train_ray.py"
PICTURES = 120  # as many for each of three workers


@pytest.mark.slow
def test_ray_trains_nodes_read_each_picture_once(photos: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("ray.train", reason="ray[train] is not installed")
    for number in range(PICTURES):
        home = tmp_path / "pictures" / f"class{number % 2}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number % len(photos)], home / f"{number:03}.jpg")
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "pictures")]
    options = ["--emulate", "2", "--workers", "3", "--epochs", "3", "--image-size", "64"]
    with tempfile.TemporaryDirectory(prefix="coordl-test-", dir="/dev/shm") as shared:
        environment = {**os.environ, "COORDL_SHM_DIR": shared, "OMP_NUM_THREADS": "1"}
        environment["COORDL_PEERS_DEADLINE_S"] = "10"  # a busy machine is no lost server
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
        assert os.listdir(shared) == []
    said = done.stdout + done.stderr
    line = r"epoch (\d): (\d+) from storage, (\d+) here, (\d+) from other nodes"
    epochs = {tuple(map(int, found)) for found in re.findall(line, said)}
    assert {epoch[:2] for epoch in epochs} == {(0, PICTURES), (1, 0), (2, 0)}, said
    for epoch, storage, here, others in epochs:
        assert storage + here + others == PICTURES
        assert epoch == 0 or others > 0
    assert "peers now: 2 server(s)" in said
