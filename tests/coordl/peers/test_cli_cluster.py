"""`coordl token` and `coordl status --cluster`."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

from typer.testing import CliRunner

from coordl.cli import app
from coordl.peers.address import record_path
from coordl.peers.client import PeerClient
from coordl.peers.secret import Secrets

run = CliRunner().invoke


def test_a_token_is_made_once_and_only_its_owner_can_read_it(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("COORDL_TOKEN")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made = run(app, ["token"])
    path = Path(made.output.strip())
    assert (made.exit_code, path) == (0, tmp_path / "coordl" / "token")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = Secrets.from_environment().token
    assert len(first) == 64
    again = run(app, ["token"])
    assert again.exit_code == 2
    assert Secrets.from_environment().token == first


def test_the_servers_of_a_job_are_shown_and_a_lost_one_is_named(make_node) -> None:
    # given two servers, of which one is told that they and a third make a job
    node, other, gone = make_node().start(), make_node().start(), "127.0.0.1:9"
    node.arena.admit(1, 1, b"x" * 1000)
    secrets = Secrets.from_environment()
    client = PeerClient(node.address, "data", secrets)
    client.tell_members([node.address, other.address, gone])
    client.drop()
    with node.here():
        shown = run(app, ["status", "--cluster", "--format", "json"])
        text = run(app, ["status", "--cluster"])
    servers = {each["address"]: each for each in json.loads(shown.stdout)["servers"]}
    assert set(servers) == {node.address, other.address, gone}
    assert servers[node.address]["items"] == 1
    assert servers[other.address]["items"] == 0
    assert "error" in servers[gone]
    assert "50 %" in text.stdout and "lost" in text.stdout


def test_a_server_with_another_token_is_not_called_lost(make_node, monkeypatch) -> None:
    node = make_node().start()
    monkeypatch.setenv("COORDL_TOKEN", "another token of some length")
    with node.here():
        text = run(app, ["status", "--cluster"]).stdout
    assert "refused" in text and "lost" not in text
    assert f"{node.address}: does not have our token" in text


def test_nothing_shared_is_said() -> None:
    shown = run(app, ["status", "--cluster"])
    assert "No caches of this node are shared" in shown.stdout


def test_what_a_killed_server_left_is_removed_by_status(make_node) -> None:
    node = make_node().start()
    with node.here():
        run(app, ["status"])
        assert record_path("data").exists()  # it lives
        node.signal(signal.SIGKILL)
        assert record_path("data").exists()
        run(app, ["status"])
        assert not record_path("data").exists()
