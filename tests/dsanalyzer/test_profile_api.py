"""`dsanalyzer.profile(loader, step)`: a loop of one's own, measured in forks of this process."""

import json
import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

import dsanalyzer
from dsanalyzer.hooks import startup
from dsanalyzer.measure.not_measured import NotMeasured
from dsanalyzer.report import load

BRIEF = {"rounds": 1, "epochs": 2, "block": 0.3, "samples": 320}
EXAMPLE = Path(__file__).parents[2] / "examples/profile_own_loop.py"


class Pictures(Dataset):
    def __init__(self, folder):
        self.paths = sorted(map(str, folder.glob("*/*.jpg")))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = Image.open(self.paths[index]).convert("RGB").resize((64, 64))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, index % 2


class OwnLoader:
    """No torch DataLoader; starts anew at each iteration."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        for start in range(0, len(self.data), 16):
            yield torch.stack([self.data[index][0] for index in range(start, start + 16)])


@pytest.fixture
def scratch(monkeypatch):
    """Where run directories are made; nothing is left there, nor any process."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield folder
        assert list(Path(folder).glob("dsanalyzer-*")) == []
        assert multiprocessing.active_children() == []


def test_a_loop_is_measured_and_nothing_changes_here(scratch, on_disk, tmp_path, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    optimizer = torch.optim.SGD([*model[:2].parameters()], lr=0.1)
    loader = DataLoader(Pictures(on_disk), 16, shuffle=True, num_workers=2, persistent_workers=True)
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"weeks of work")

    def train_step(minibatch):
        images, labels = minibatch
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        torch.save(model.state_dict(), checkpoint)

    running = iter(loader)  # workers of this process, and its OpenMP threads, are in use
    model(next(running)[0])
    weights, drawn = model[0].weight.clone(), torch.get_rng_state()

    output = tmp_path / "r.json"
    result = dsanalyzer.profile(loader, train_step, output=output, cached="65%", **BRIEF)

    assert torch.equal(model[0].weight, weights) and torch.equal(torch.get_rng_state(), drawn)
    assert len(list(running)) == 19  # the rest of the epoch
    loader._iterator._shutdown_workers()
    assert checkpoint.read_bytes() == b"weeks of work"
    assert result["diverted"] == [str(checkpoint)]
    jsonschema.validate(result, load.schema("result"))
    assert load.load_result(output) == json.loads(json.dumps(result))
    checks = {check["name"]: check["ok"] for check in result["checks"]}
    assert checks["prep passes read no storage"] and checks["the first fetch pass is cold"]
    assert checks["epoch 1: bytes read are the policy's misses"]
    assert {one["phase"] for one in result["passes"]} >= {"ingestion", "delivery", "prep", "fetch"}
    assert result["command"] == [f"dsanalyzer.profile(DataLoader, {train_step.__qualname__})"]
    shown = capsys.readouterr()
    assert "Where an epoch goes" in shown.out and str(output) in shown.out
    assert "fetch: pass over 320 files" in shown.err


def test_any_loader_will_do_and_no_optimizer_is_needed(scratch, on_disk, capsys):
    options = {**BRIEF, "samples": 160}
    result = dsanalyzer.profile(OwnLoader(Pictures(on_disk)), len, show=False, **options)

    assert result["loader"]["class"].endswith("OwnLoader")
    assert result["dataset"]["measured_samples"] == 160
    assert capsys.readouterr().out == ""


def test_a_step_that_raises_shows_where(scratch, on_disk):
    def train_step(minibatch):
        raise RuntimeError("my own mistake")

    loader = DataLoader(Pictures(on_disk), 16)
    with pytest.raises(NotMeasured, match=r"exit code 1(.|\n)*RuntimeError: my own mistake"):
        dsanalyzer.profile(loader, train_step, show=False, **BRIEF)


def test_a_loader_that_yields_nothing_says_so(scratch):
    with pytest.raises(NotMeasured, match="the loader yields no minibatch"):
        dsanalyzer.profile(DataLoader([], 4), len, show=False, **BRIEF)


def test_what_cannot_be_measured_is_refused_before_anything_runs(tmp_path, monkeypatch):
    loader = DataLoader([1, 2], 1)
    with pytest.raises(TypeError, match="can be iterated only once"):
        dsanalyzer.profile(iter([1, 2]), len)
    with pytest.raises(ValueError, match="not a time"):
        dsanalyzer.profile(loader, len, budget="soon")
    with pytest.raises(ValueError, match="threshold is 0"):
        dsanalyzer.profile(loader, len, threshold=0)
    with pytest.raises(FileExistsError, match="choose another name"):
        dsanalyzer.profile(loader, len, output=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_initialized", lambda: True)
        with pytest.raises(NotMeasured, match="uses CUDA, which does not outlive the fork"):
            dsanalyzer.profile(loader, len)
    with monkeypatch.context() as patched:
        patched.setattr(startup, "is_installed", lambda: True)
        with pytest.raises(NotMeasured, match="profiled or watched by dsanalyzer already"):
            dsanalyzer.profile(loader, len)


@pytest.mark.slow
def test_the_example_runs(on_disk, tmp_path):
    words = [sys.executable, str(EXAMPLE), str(on_disk), "--budget", "20s", "--output", "r.json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "Where an epoch goes" in done.stdout
    assert load.load_result(tmp_path / "r.json")["loader"]["num_workers"] == 2
