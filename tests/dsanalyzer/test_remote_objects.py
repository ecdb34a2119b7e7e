"""Data that is read from a network through fsspec: fetch and prep told apart, as of files."""

import functools
import http.server
import io
import json
import threading
import time
from collections import Counter

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from dsanalyzer.evidence import over_the_network
from dsanalyzer.hooks import opens, remote, subset
from dsanalyzer.measure import objects, residency, storage

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


def measured(cli, server, shape):
    held = ("--cached", "50%", "--policy", "never-evict")
    job = cli.job("shapes.py", shape, server.url)
    done = cli("profile", *BRIEF, *held, "-o", "r.json", *job)
    assert done.returncode == 0, done.stderr
    assert cli.leftovers() == []
    return json.loads((cli.folder / "r.json").read_text()), " ".join(done.stdout.split())


@pytest.mark.parametrize("shape", ["fsspec", "fsspec-client", "fsspec-stream"])
def test_fetch_and_prep_of_objects_are_told_apart(cli, served, shape):
    result, shown = measured(cli, served, shape)

    checks = {check["name"]: check for check in result["checks"]}
    for name in (
        "prep passes read no storage",
        "the first fetch pass is cold",
        "storage was measured cold",
        "epoch 1: the cached fraction is what was asked for",
        "epoch 1: bytes read are the policy's misses",
    ):
        assert checks[name]["ok"], checks
    assert "the data is read from http://127.0.0.1" in shown
    files = result["dataset"]["files"]
    assert all(name.startswith(served.url + "/class") for name in files)
    # An object takes its delay at least, and the two workers ask for one each at a time.
    first, second, third = (p for p in result["passes"] if p["phase"] == "fetch")
    assert first["samples"] / first["wall_s"] < 2 / DELAY_S
    assert 0.45 < result["epochs"][1]["read_share"] < 0.56
    assert second["missed_files"] == third["missed_files"] == pytest.approx(80, abs=15)
    assert result["steady"]["fetch_stall_s"]["value"] > 0

    # What the server saw: each object while the job was learned and looked through (probes among
    # them), by the tool alone, in the cold pass, and in two passes where it was not held. No prep.
    gets = [served.gets[name.removeprefix(served.url)] for name in files]
    fewest = result["dataset"]["measured_samples"] * (1 + 1 + 1 + 2 * 0.45)
    assert fewest * 0.95 < sum(gets) < fewest * 1.35
    name = "objects came over the network in fetch passes, and in no prep pass"
    assert name in checks  # whether it passes is also of other programs' traffic


def test_what_was_received_is_held_against_what_was_asked_for():
    def check(asked, came, beside):
        prep = [{"received_bytes": beside}] * 3
        fetch = [{"received_bytes": came, "missed_bytes": asked}] * 2
        return over_the_network(prep, fetch, 100 << 20)["ok"]

    asked = 100 << 20
    assert check(asked, asked, 0) and check(asked, 0.6 * asked, 5 << 20)
    assert not check(asked, 0.4 * asked, 0)
    assert not check(asked, asked, 20 << 20)
    assert not check(0, 0, 0)  # nothing that was kept was asked for


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


class Far(fsspec.AbstractFileSystem):
    """A file system of a network; `cat_file` is built on `open`, as fsspec's own."""

    protocol = "far"
    cachable = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = []

    def _open(self, path, mode="rb", **kwargs):
        if mode == "rb":
            self.asked.append(path)
        return io.BytesIO(f"content of {path}{kwargs.get('version', '')}".encode())

    def info(self, path, **_):
        return {"name": path, "size": len(f"content of {path}"), "type": "file"}


class FarAsync(AsyncFileSystem):
    protocol = "afar"
    cachable = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = []

    async def _cat_file(self, path, start=None, end=None, **_):
        self.asked.append(path)
        return f"content of {path}".encode()[start:end]

    async def _info(self, path, **_):
        return {"name": path, "size": len(f"content of {path}"), "type": "file"}


def seen(folder, kind=Far, *args, **kwargs):
    filesystem = kind(*args, **kwargs)
    remote.Reads(str(folder)).see(filesystem)
    return filesystem


@pytest.mark.parametrize("kind", [Far, FarAsync])
def test_an_object_is_kept_while_they_are_looked_for(tmp_path, told, kind):
    far = seen(tmp_path, kind)

    far.cat_file("before")
    assert told == [] and list(tmp_path.iterdir()) == []
    with objects.keeping(str(tmp_path)):
        assert far.cat(["a/b", "c"]) == {"a/b": b"content of a/b", "c": b"content of c"}
        with far.open("a/b") as file:
            assert file.read() == b"content of a/b" and file.size == 14
            assert file.seek(-3, 2) and file.read() == b"a/b"
        with far.open("new", "r") as file:  # as text
            assert file.read() == "content of new"
    assert far.asked == ["before", "a/b", "c", "new"]
    assert [objects.name_of(path) for path, _ in told] == [
        f"{far.protocol}://{name}" for name in ("a/b", "c", "a/b", "new")
    ]


@pytest.mark.parametrize("kind", [Far, FarAsync])
def test_the_mark_decides_where_an_object_is_read(tmp_path, told, kind):
    far = seen(tmp_path, kind)
    with objects.keeping(str(tmp_path)):
        far.cat_file("a/b")
    ((kept, _),) = told
    told.clear()
    far.asked.clear()

    assert far.cat_file("a/b") == b"content of a/b"
    residency.admit(kept)
    assert residency.resident_pages(kept)[:2] == (1, 1)
    assert far.cat_file("a/b") == b"content of a/b" and far.open("a/b").read(7) == b"content"
    residency.evict(kept)
    assert residency.resident_pages(kept) == (0, 1, "mark")
    assert far.cat_file("a/b") == b"content of a/b"
    assert far.asked == ["a/b", "a/b"]
    page = residency.PAGE_BYTES
    assert told == [(kept, page), (kept, 0), (kept, 0), (kept, page)]
    # What was not kept is read as ever, and nobody is told.
    assert far.cat_file("new") == b"content of new" and len(told) == 4


def test_parts_versions_and_writes_go_where_they_went(tmp_path, told):
    far = seen(tmp_path)

    with objects.keeping(str(tmp_path)):
        assert far.cat_file("a/b", start=0, end=7) == b"content"
        assert far.open("a/b", version=2).read() == b"content of a/b2"
        assert far.open("a/b", "wb") is not None
        assert told == []
        far.cat_file("a/b", start=None, end=None)
    residency.admit(told[0][0])
    assert far.cat_file("a/b", 0, 7) == b"content"
    assert far.open("a/b", version=2).read() == b"content of a/b2"


def test_the_same_name_elsewhere_is_another_object(tmp_path):
    def kept(*args, **kwargs):
        return objects.kept_path(str(tmp_path), Far(*args, **kwargs), "a")

    here = kept("one", session=object(), endpoint=None)
    assert here == kept("one", endpoint=None, session=object())
    assert len({here, kept("two", session=object(), endpoint=None), kept("one")}) == 3


def test_an_object_that_the_disk_has_no_room_for_is_not_kept(tmp_path, told, monkeypatch):
    monkeypatch.setattr(objects, "LEFT_BYTES", 1 << 60)
    far = seen(tmp_path)

    with objects.keeping(str(tmp_path)):
        assert far.open("a").read() == far.cat_file("a") == b"content of a"
    assert told == [] and [path.name for path in tmp_path.iterdir() if path.is_file()] == [
        "refused"
    ]


@pytest.mark.parametrize("size", [None, 1 << 40])
def test_an_object_too_large_to_keep_is_said(tmp_path, told, size):
    far = seen(tmp_path)
    far.info = lambda path: {"name": path, "size": size, "type": "file"}

    with objects.keeping(str(tmp_path)):
        assert far.open("a").read() == b"content of a"
    assert objects.refused(str(tmp_path)) and told == []


def test_ranks_keep_until_the_last_has_ended(tmp_path, told, monkeypatch):
    far, folder = seen(tmp_path), str(tmp_path)

    with objects.keeping(folder):
        with monkeypatch.context() as other:
            other.setattr(objects.os, "getpid", lambda: 1)
            with objects.keeping(folder):
                pass
        far.cat_file("a")
    far.cat_file("b")
    assert len(told) == 1


def test_files_beside_objects_are_left_out_where_they_are_small():
    kept = objects.kept_path("/tmp", Far(), "a")

    assert subset.objects_alone({kept: 1000, "labels": 10}) == {kept: 1000}
    with pytest.raises(subset.NotMeasurable, match="from objects of a network and from files"):
        subset.objects_alone({kept: 1000, "captions": 500})


def test_errors_of_the_tool_are_not_the_jobs(tmp_path, told):
    far = seen(tmp_path / "gone")

    assert far.cat_file("a") == far.open("a").read() == b"content of a"


def test_names_tell_no_secrets_and_stay_apart(tmp_path):
    far = Far()
    far.unstrip_protocol = lambda path: f"https://user:pass@host/a?token={path}"
    kept = [objects.kept_path(str(tmp_path), far, path) for path in "xy"]
    for path, name in zip(kept, "xy", strict=True):
        objects.keep(path, b"content", far, name)

    names = objects.named(dict.fromkeys(kept, 7))
    assert len(names) == 2
    assert all(name.startswith("https://host/a?") and "token" not in name for name in names)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_storage_is_asked_by_a_client_of_the_tools_own(tmp_path, capfd):
    far = FarAsync("one", option=None)
    kept = objects.kept_path(str(tmp_path), far, "a")
    objects.keep(kept, b"content of a", far, "a")

    assert objects.fetch(kept) == len(b"content of a") and far.asked == []
    row = storage.deliver([kept] * 4, 2, 5.0, cold=True)
    assert row["samples"] == 4 and row["read_bytes"] == 4 * residency.PAGE_BYTES
    lost = FarAsync(hook=lambda: None)  # which no other process knows
    kept = objects.kept_path(str(tmp_path), lost, "a")
    objects.keep(kept, b"content of a", lost, "a")
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        storage.deliver([kept], 2, 5.0, cold=True)


def test_a_metaclass_of_its_own_is_seen_too(tmp_path, told, monkeypatch):
    monkeypatch.setattr(fsspec.spec._Cached, "__call__", fsspec.spec._Cached.__call__)
    monkeypatch.setattr(fsspec.spec._Cached, "__init__", fsspec.spec._Cached.__init__)
    remote.patch(fsspec.spec, {"objects_dir": str(tmp_path)})

    class Own(type(Far)):
        def __call__(cls, *args, **kwargs):
            return type.__call__(cls, *args, **kwargs)

    class FarToo(Far, metaclass=Own):
        pass

    with objects.keeping(str(tmp_path)):
        for far in (Far(), FarToo()):
            far.storage_args, far.storage_options = (), {}
            far.cat_file("a")
    assert len(told) == 2
    assert not hasattr(fsspec.filesystem("memory"), "_dsanalyzer")
