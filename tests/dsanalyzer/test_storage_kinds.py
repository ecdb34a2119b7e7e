"""Data on other storage than a disk: measured as far as it can be, and said what could not be."""

import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from dsanalyzer.measure.mounts import mount_of

BRIEF = ("--rounds", 1, "--epochs", 2, "--block", 0.3, "--samples", 160, "--gpu-rate", 2000)


def profiled(cli, *job):
    done = cli("profile", *BRIEF, "-o", "r.json", *job)
    assert done.returncode == 0, done.stderr
    assert cli.leftovers() == []
    return json.loads((cli.folder / "r.json").read_text()), " ".join(done.stdout.split())


def test_data_in_memory_has_no_cold_pass_and_that_is_said(cli, pictures):
    if mount_of("/dev/shm").type != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="coordl-test-") as folder:
        shutil.copytree(pictures, Path(folder, "data"))
        held = ("--storage", "20MB/s")  # by pacing, which has nothing to pace
        result, shown = profiled(cli, *held, *cli.job("train.py", Path(folder, "data")))

    assert result["steady"]["fetch_stall_s"]["verdict"] == "inconclusive"
    assert "the data lies in memory (tmpfs on /dev/shm)" in shown
    checks = {check["name"]: check["ok"] for check in result["checks"]}
    assert checks["prep passes read no storage"]  # prep itself was measured as ever
    assert not checks["the first fetch pass is cold"]


def test_data_behind_a_daemon_is_measured_by_what_was_not_in_memory(cli, on_disk, tmp_path):
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed")
    place = tmp_path / "served"
    place.mkdir()
    if subprocess.run(["bindfs", str(on_disk), str(place)]).returncode:
        pytest.skip("no FUSE mount may be made here")
    try:
        result, shown = profiled(cli, *cli.job("train.py", place))
    finally:
        subprocess.run(["umount", str(place)], check=True)

    checks = {check["name"]: check for check in result["checks"]}
    assert checks["the first fetch pass is cold"]["ok"], checks
    assert checks["storage was measured cold"]["ok"], checks
    # What leads in is opened by several workers before any of them has read it.
    assert 0.98 <= result["epochs"][0]["read_share"] <= 1.06
    assert "behind a server or daemon (fuse" in shown


def test_samples_that_come_over_a_network_are_refused_with_what_to_do(cli, pictures):
    body = next(pictures.glob("*/*.jpg")).read_bytes()

    class Serves(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serves)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        done = cli("profile", *BRIEF, "-o", "r.json", *cli.job("shapes.py", "remote", url))
    finally:
        server.shutdown()
        server.server_close()

    said = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stdout
    assert "came over the network while 160 were loaded" in said and "dsanalyzer watch" in said
    assert cli.leftovers() == []
