"""On a GPU: what the copies to it take is measured apart."""

import json

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from torch.utils.data import DataLoader
from train import Pictures

model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.Flatten())
model = model.cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
data = Pictures(sys.argv[1], True)
for _ in range(4):
    for images, _ in DataLoader(data, 16, shuffle=True, num_workers=2, pin_memory=True):
        optimizer.zero_grad()
        model(images.cuda(non_blocking=True)).square().mean().backward()
        optimizer.step()
"""


def test_copies_from_pinned_memory_are_measured_beside_ingestion(cli, on_disk):
    (cli.folder / "job.py").write_text(SCRIPT)
    job = cli.job("train.py")
    words = [job[0], job[1], cli.folder / "job.py", on_disk, job[2].rpartition("/")[0]]
    done = cli(
        "profile", "--rounds", 2, "--epochs", 2, "--block", 0.5, "--samples", 320,
        "-o", "r.json", *words,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    result = json.loads((cli.folder / "r.json").read_text())
    blocks = [one for one in result["passes"] if one["phase"] == "copy"]
    assert [one["round"] for one in blocks] == [0, 1]
    assert 0 <= result["steady"]["copy_s"]["value"] < result["steady"]["time_s"]["value"]
    assert result["emulated"] is None and result["machine"]["gpu"]
