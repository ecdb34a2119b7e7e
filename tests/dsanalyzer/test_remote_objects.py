"""Data that is read from a network through fsspec: fetch and prep told apart, as of files."""

import functools
import http.server
import json
import threading
import time
from collections import Counter

import pytest

from dsanalyzer.hooks import opens, remote
from dsanalyzer.measure import objects, residency

BRIEF = ("--rounds", 1, "--epochs", 3, "--block", 0.3, "--samples", 160, "--gpu-rate", 2000)
DELAY_S = 0.02


class Server:
    """A folder over HTTP, each object some time after it was asked for."""

    def __init__(self, folder):
        self.gets = Counter()
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self):
                outer.gets[self.path] += 1
                time.sleep(DELAY_S)
                super().do_GET()

            def log_message(self, *_):
                pass

        handler = functools.partial(Handler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def served(pictures):
    server = Server(pictures)
    yield server
    server.close()


@pytest.mark.parametrize("shape", ["fsspec", "fsspec-client", "fsspec-stream"])
def test_fetch_and_prep_of_objects_are_told_apart(cli, served, shape):
    held = ("--cached", "50%", "--policy", "never-evict")
    job = cli.job("shapes.py", shape, served.url)
    done = cli("profile", *BRIEF, *held, "-o", "r.json", *job)

    assert done.returncode == 0, done.stderr
    assert cli.leftovers() == []
    result = json.loads((cli.folder / "r.json").read_text())
    checks = {check["name"]: check for check in result["checks"]}
    for name in (
        "prep passes read no storage",
        "the first fetch pass is cold",
        "storage was measured cold",
        "objects came over the network in fetch passes, and in no prep pass",
        "epoch 1: the cached fraction is what was asked for",
        "epoch 1: bytes read are the policy's misses",
    ):
        assert checks[name]["ok"], checks
    assert result["dataset"]["files"][0].startswith(served.url + "/class")
    assert result["dataset"]["measured_samples"] >= 120
    # An object takes the delay at least, and the two workers ask for one each at a time.
    fetch, prep = result["steady"]["fetch_stall_s"], result["rates"]["P"]["value"]
    assert fetch["verdict"] == "stall"
    cold = next(p for p in result["passes"] if p["phase"] == "fetch")
    assert cold["samples"] / cold["wall_s"] < 2 / DELAY_S < prep
    assert 0.45 < result["epochs"][1]["read_share"] < 0.56
    assert f"the data is read from {served.url} through fsspec" in " ".join(done.stdout.split())


def test_a_limit_on_storage_is_refused_of_objects(cli, served):
    job = cli.job("shapes.py", "fsspec", served.url)
    done = cli("profile", *BRIEF, "--storage", "20MB/s", "-o", "r.json", *job)

    said = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stdout
    assert "--storage holds back what is read from disks" in said and "whatif --storage" in said


@pytest.fixture
def told(monkeypatch):
    """What the tool is told of: (path, bytes over the network)."""
    heard = []
    monkeypatch.setattr(opens, "tell", lambda path, count: heard.append((path, count)))
    return heard


@pytest.fixture
def filesystem():
    """A file system of a network, not seen yet: (asked, file system)."""
    fsspec = pytest.importorskip("fsspec")
    asked = []

    class Far(fsspec.AbstractFileSystem):
        protocol = "far"
        cachable = False
        root_marker = ""

        def _open(self, path, mode="rb", **_):
            import io

            asked.append(path)
            return io.BytesIO(f"content of {path}".encode())

        def info(self, path, **_):
            return {"name": path, "size": len(f"content of {path}"), "type": "file"}

    return asked, Far(where="here")


def reads(tmp_path, kind):
    return remote._Reads({"objects_dir": str(tmp_path), "kind": kind})


def test_an_object_is_asked_for_once_in_the_first_run(tmp_path, filesystem, told):
    asked, far = filesystem
    reads(tmp_path, "rates").see(far)

    with far.open("a/b") as file:
        assert file.read() == b"content of a/b" and file.size == 14
    with far.open("far://a/b", "r") as file:  # as text, and by its whole name
        assert file.read() == "content of a/b"
    assert far.cat_file("a/b") == far.cat(["a/b"])["a/b"] == b"content of a/b"
    assert asked == ["a/b"]
    kept = told[0][0]
    assert {path for path, _ in told} == {kept} and objects.name_of(kept) == "far://a/b"
    assert [count for _, count in told] == [residency.device_bytes(14), 0, 0, 0]


def test_in_the_second_run_the_mark_decides(tmp_path, filesystem, told):
    asked, far = filesystem
    first = type(far)(where="here", other=None)
    first.storage_options.pop("other")
    reads(tmp_path, "rates").see(first)
    first.cat_file("a/b")
    first.cat_file("c")
    (kept, _), _ = told
    told.clear(), asked.clear()

    reads(tmp_path, "fetch").see(far)
    assert far.cat_file("a/b") == b"content of a/b"
    residency.admit(kept)
    assert residency.resident_pages(kept)[:2] == (1, 1)
    assert far.cat_file("a/b") == b"content of a/b"
    residency.evict(kept)
    assert residency.resident_pages(kept) == (0, 1, "mark")
    assert far.open("a/b").read() == b"content of a/b"
    assert asked == ["a/b", "a/b"]
    assert [count for path, count in told if path == kept] == [residency.PAGE_BYTES, 0, 4096]
    # What the first run did not read is read as ever, and nobody is told.
    told.clear()
    assert far.cat_file("new") == b"content of new"
    assert told == []


def test_parts_of_objects_and_writes_go_where_they_went(tmp_path, filesystem, told):
    _, far = filesystem
    reads(tmp_path, "rates").see(far)

    assert far.cat_file("a/b", start=0, end=7) == b"content"
    assert far.open("a/b", "wb") is not None
    assert told == [] and list(tmp_path.iterdir()) == []


def test_the_same_name_on_another_server_is_another_object(tmp_path):
    here, there = (
        objects.kept_path(str(tmp_path), "s3://a/b", {"endpoint_url": url, "session": object()})
        for url in ("http://one", "http://two")
    )
    again = objects.kept_path(
        str(tmp_path), "s3://a/b", {"session": object(), "endpoint_url": "http://one"}
    )
    assert here == again != there


def test_an_object_that_the_disk_has_no_room_for_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "LEFT_BYTES", 1 << 60)
    kept = objects.kept_path(str(tmp_path), "far://a", {})

    assert not objects.keep(kept, b"content", "far://a", None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_be_made_again_is_said(tmp_path):
    kept = objects.kept_path(str(tmp_path), "far://a", {})
    objects.keep(kept, b"content", "far://a", None)

    with pytest.raises(RuntimeError, match="does not say what it was made with"):
        objects.fetch(kept)
    gone = json.dumps({"cls": "nowhere.Client", "protocol": "far", "args": []})
    objects.keep(kept, b"content", "far://a", gone)
    with pytest.raises(RuntimeError, match="Install what the job reads with beside dsanalyzer"):
        objects.fetch(kept)
