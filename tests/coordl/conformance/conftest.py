"""The engines every conformance test runs over, and the record of which one served it.

    python -m pytest tests/coordl/conformance --conformance-table docs/conformance.md

writes the record into that file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance_data import COUNT, Engine, Numbers, as_float
from conformance_table import NATIVE, OURS, SLOTS, TORCH, write_table

import coordl
from coordl import transforms as T
from coordl.delivery.native import NativeIterator
from coordl.staging.iterator import StagedWorkers

_AREAS: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance-table", metavar="FILE", help="write which engine served what")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "area(name): the area a conformance test belongs to")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--conformance-table", default=None)
    if path and exitstatus == 0:
        write_table(Path(path), _AREAS)


def _served_by(loader: coordl.DataLoader, iterator: Any) -> str:
    if isinstance(iterator, NativeIterator):
        return NATIVE
    if getattr(iterator._dataset, "tended", loader.dataset) is not loader.dataset:
        return OURS
    return SLOTS if isinstance(iterator, StagedWorkers) else TORCH


@pytest.fixture(autouse=True)
def _record(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes which engine each of coordl's loaders takes in this test."""
    marker = request.node.get_closest_marker("area")
    assert marker is not None, "every conformance test belongs to an area"
    engines = _AREAS[marker.args[0]]
    begin = coordl.DataLoader._get_iterator

    def noted(loader: coordl.DataLoader) -> Any:
        iterator = begin(loader)
        engines[_served_by(loader, iterator)].add(request.node.nodeid)
        return iterator

    monkeypatch.setattr(coordl.DataLoader, "_get_iterator", noted)


@pytest.fixture(scope="session")
def pictures(
    tmp_path_factory: pytest.TempPathFactory, photos: list[Path], encode: Callable[..., bytes]
) -> Path:
    """An image folder in which every picture is a class of its own: a target is an index."""
    root = tmp_path_factory.mktemp("conformance") / "pictures"
    encodings = ("4:2:0", "4:4:4", "grey", "progressive 4:2:0")
    for number in range(COUNT):
        home = root / f"{number:02}"
        home.mkdir(parents=True)
        photo, encoding = photos[number % len(photos)], encodings[number % len(encodings)]
        (home / "one.jpg").write_bytes(encode(photo, encoding, (60 + number, 48)))
    return root


@pytest.fixture
def folder(pictures: Path) -> coordl.ImageFolder:
    return coordl.ImageFolder(pictures, T.Compose([T.CenterCrop(24), T.PILToTensor()]))


@pytest.fixture(params=["native", "native threads", "native in workers", "python", "workers"])
def engine(request: pytest.FixtureRequest, pictures: Path, folder: Any) -> Iterator[Engine]:
    """Natively with 0 and 2 threads; natively within torch's workers; Python without and with."""
    if request.param == "native":
        yield Engine("native", folder, {}, {"prep": "native"})
    elif request.param == "native threads":
        yield Engine("native threads", folder, {"num_workers": 2}, {"prep": "native"})
    elif request.param == "native in workers":
        steps = T.Compose([T.CenterCrop(24), T.PILToTensor(), as_float])
        yield Engine("native in workers", coordl.ImageFolder(pictures, steps), {"num_workers": 2})
    elif request.param == "python":
        yield Engine("python", Numbers())
    else:
        yield Engine("workers", Numbers(), {"num_workers": 2})
