"""Nodes of a Ray cluster share their caches, whether Ray Train runs there or plain actors."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import coordl
from coordl.errors import PeerError
from coordl.integrations import ray as on_ray

PICTURES = 22
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def folder(class_folder: Callable[..., Path]) -> Path:
    return class_folder(PICTURES)


@pytest.fixture
def home() -> Iterator[Path]:
    """Where the nodes' directories of arenas are; empty after the next coordl command."""
    place = Path(tempfile.mkdtemp(prefix="coordl-test-", dir="/dev/shm"))
    yield place
    for node in place.iterdir():
        environment = {**os.environ, "COORDL_SHM_DIR": str(node)}
        status = [sys.executable, "-m", "coordl.cli", "status"]  # removes what killed ones left
        subprocess.run(status, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=60)
        assert os.listdir(node) == []
    shutil.rmtree(place)


def run(what: str, folder: Path, results: Path, home: Path, epochs: int, linger: int) -> None:
    pytest.importorskip("ray.train", reason="ray[train] is not installed")
    results.mkdir()
    job = Path(__file__).with_name("ray_job.py")
    command = [sys.executable, str(job), what, str(folder), str(results), str(home), str(epochs)]
    environment = {**os.environ, "COORDL_TOKEN": TOKEN, "COORDL_PEERS_LINGER_S": str(linger)}
    environment["COORDL_PEERS_DEADLINE_S"] = "10"  # a busy machine is no lost server
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]


def told(results: Path, rank: int, epoch: int) -> dict[str, Any]:
    return dict(json.loads((results / f"{rank}.{epoch}.json").read_text()))


def check_samples(folder: Path, results: Path, world: int) -> int:
    """All epochs of all ranks that told of them gave what a lone loader does; how many did."""
    from ray_job import digest, make_loader

    checked = 0
    for rank in range(world):
        alone = make_loader(str(folder), rank, world)
        for path in results.glob(f"{rank}.*.json"):
            epoch = int(path.name.split(".")[1])
            assert told(results, rank, epoch)["digest"] == digest(alone, epoch), path.name
            checked += 1
    return checked


def server_of(figures: dict[str, Any]) -> str:
    return str(figures["plan"].partition("this one at ")[2].split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["train", "restart"])
def test_train_workers_read_the_data_set_once_together(what, folder, tmp_path, home) -> None:
    # given three workers of Ray Train on two nodes; in "restart" one is killed in the third epoch,
    # and Ray makes all anew
    results, epochs = tmp_path / "results", 4
    run(what, folder, results, home, epochs, linger=3 if what == "train" else 30)
    assert (results / "died").exists() == (what == "restart")
    # then the samples are those of lone loaders
    assert check_samples(folder, results, 3) == 3 * epochs
    # storage is read once, in the first epoch: also after a restart, as the servers are Ray's to
    # keep and not the workers'
    size = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    for epoch in range(epochs):
        ranks = [told(results, rank, epoch) for rank in range(3)]
        figures = [rank["figures"] for rank in ranks]
        read = sum(each["storage_bytes"] for each in figures)
        # (22 pictures for three ranks: the sampler gives two of them twice)
        assert sum(each["samples"] for each in figures) == PICTURES + 2
        assert size <= read <= 1.2 * size if epoch == 0 else read == 0
        assert epoch == 0 or sum(each["remote_hits"] for each in figures) > 0
        # each node has one server, whatever the number of its workers
        assert all("peers now: 2 server(s)" in rank["plan"] for rank in ranks)
        assert len({(rank["node"], server_of(rank)) for rank in ranks}) == 2


@pytest.mark.slow
def test_a_killed_actor_and_a_lost_node_change_no_sample(folder, tmp_path, home) -> None:
    # given loaders in plain actors of three nodes, without torch.distributed
    results = tmp_path / "results"
    run("nodes", folder, results, home, 0, linger=3)
    killed, lost, epochs = json.loads((results / "phases").read_text())
    # then they found each other
    size = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    first, second = ([told(results, rank, at)["figures"] for rank in range(3)] for at in (0, 1))
    assert size <= sum(each["storage_bytes"] for each in first) <= 1.2 * size
    assert sum(each["storage_bytes"] for each in second) == 0
    assert sum(each["remote_hits"] for each in second) > 0
    # and every epoch is a lone loader's, of all three until a node is lost, of two after that
    # (the numbers of `killed` and `lost` themselves are no epochs)
    assert killed >= 3 and lost >= killed + 3 and epochs >= lost + 3
    assert check_samples(folder, results, 3) == 3 * (lost - 1) + 2 * (epochs - lost - 1)


def test_ray_that_is_not_installed_is_named_with_the_extra(folder, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    with pytest.raises(PeerError, match=r"pip install 'data-stall-toolkit\[ray\]'"):
        coordl.DataLoader(coordl.ImageFolder(folder), cache="100%", peers="ray")


def test_a_process_in_no_cluster_is_told_to_join_one(folder, arenas, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name == "ray" else find(name)
    )
    monkeypatch.setenv("COORDL_TOKEN", TOKEN)
    assert on_ray.running() is None
    data = coordl.ImageFolder(folder, coordl.transforms.ToTensor())
    loader = coordl.DataLoader(data, cache="100%", peers="ray")
    with pytest.raises(PeerError, match=r"call ray\.init\(\) before the first epoch"):
        next(iter(loader))


def test_another_word_for_peers_is_refused(folder) -> None:
    with pytest.raises(ValueError, match="peers is 'auto', 'ray' or a list"):
        coordl.DataLoader(coordl.ImageFolder(folder), cache="100%", peers="Ray")
