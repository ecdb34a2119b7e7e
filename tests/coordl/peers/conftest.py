"""Servers of a job, emulated: each node has a directory of arenas of its own, on loopback."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulated import PICTURES, TOKEN, Node, wait_until

from coordl import _native
from coordl.peers import node as own_node


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This node's directory; empty afterwards, and no descriptor or server more than before."""
    directory = Path(tempfile.mkdtemp(prefix="coordl-test-", dir="/dev/shm"))
    monkeypatch.setenv("COORDL_SHM_DIR", str(directory))
    monkeypatch.setenv("COORDL_TOKEN", TOKEN)
    monkeypatch.setenv("COORDL_PEERS_LINGER_S", "0")
    monkeypatch.delenv("COORDL_PEERS_SELF", raising=False)
    _connect_once()
    before = set(os.listdir("/proc/self/fd"))
    yield directory
    gc.collect()
    wait_until(lambda: all(each.poll() is not None for each in own_node._STARTED))
    _native.reap_arenas()
    left = [path.name for path in directory.iterdir() if not path.name.endswith(".lock")]
    assert left == []
    wait_until(lambda: len(set(os.listdir("/proc/self/fd"))) <= len(before), 20)
    shutil.rmtree(directory)


def _connect_once() -> None:
    """gRPC opens descriptors for itself that stay: not what tests look for."""
    import pyarrow.flight as flight

    client = flight.FlightClient("grpc+tcp://127.0.0.1:9")
    with pytest.raises(flight.FlightError):
        list(client.do_action(flight.Action("x", b""), flight.FlightCallOptions(timeout=1)))
    client.close()


@pytest.fixture
def make_node() -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(name: str = "data", budget: int = 64 << 20) -> Node:
        nodes.append(Node(name, budget))
        return nodes[-1]

    yield make
    while nodes:  # none is kept: their arenas' descriptors go with them
        nodes.pop().end()


@pytest.fixture
def folder(class_folder: Callable[..., Path]) -> Path:
    """An image folder: 22 photographs in 2 classes."""
    return class_folder(PICTURES)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """ca.pem, and node.pem with node.key, signed by it, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make certificates with")

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run(
        "req",
        "-x509",
        *curve,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=ca",
    )
    run("req", *curve, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=node")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    run("x509", "-req", "-in", "node.csr", *sign, "-out", "node.pem", "-days", "2")
    return tmp_path
