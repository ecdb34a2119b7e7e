"""Objects of remote storage: which bytes they are, and what happens when storage misbehaves."""

from __future__ import annotations

import errno
import itertools
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from moody_server import MoodyServer

from coordl.errors import ItemError
from coordl.fetch.cache import MinIOCache
from coordl.fetch.remote import Identity, ObjectReader, Unidentified, identify_object, place_of
from coordl.fetch.retry import InconsistentReadError, Retry, is_temporary

DATA = bytes(range(256)) * 400


@pytest.fixture(scope="module", autouse=True)
def event_loop() -> None:
    fsspec.asyn.get_loop()  # fsspec starts it once and keeps it


@pytest.fixture
def server(server: MoodyServer) -> MoodyServer:
    server.objects["/a"] = DATA
    return server


@pytest.fixture
def reader(shm_dir: Path) -> Iterator[ObjectReader]:
    with MinIOCache("4MiB", name="t-remote", form="original") as cache:
        reader = ObjectReader(cache, Retry(attempts=4, first_s=0.001, longest_s=0.01))
        yield reader
        del reader.cache  # pytest keeps the reader a little longer


def http() -> Any:
    return fsspec.filesystem("http", skip_instance_cache=True)


# -- identity --------------------------------------------------------------------------------


def test_keys_differ_in_place_url_range_size_and_version() -> None:
    base = {"url": "s3://b/k", "place": "p", "size": 10, "version": "v"}
    others = [{"url": "s3://b/k2"}, {"place": "q"}, {"size": 11}, {"version": "w"}]
    others += [{"url": "s3://b/kp", "place": ""}, {"url": "", "place": "s3://b/kp"}]
    keys = [Identity(**{**base, **other}).key() for other in [{}, *others]]
    keys += [Identity(**base).key(0, 5), Identity(**base).key(5, 10)]
    assert len(set(keys)) == len(keys)
    assert Identity(**base).key(0, 10) == Identity(**base).key()


def test_the_same_object_has_one_key_and_a_replaced_one_another(memory: Any) -> None:
    memory.pipe("/x", b"one")
    first = identify_object(memory, "/x")
    assert identify_object(memory, "/x").key() == first.key()
    memory.pipe("/x", b"two")
    assert identify_object(memory, "/x").key() != first.key()


def test_local_files_are_known_by_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    fs = fsspec.filesystem("file")
    first = identify_object(fs, str(file))
    assert first.size == 3 and first.url == f"file://{file}"
    (tmp_path / "y").write_bytes(b"abd")
    (tmp_path / "y").rename(file)
    assert identify_object(fs, str(file)).key() != first.key()


class Fake:
    """A file system of which only info() matters."""

    storage_args: tuple = ()

    def __init__(self, info: dict[str, Any], **options: Any) -> None:
        self.storage_options = options
        self._info = info

    def info(self, path: str) -> dict[str, Any]:
        return {"size": 3, **self._info}

    def unstrip_protocol(self, path: str) -> str:
        return f"fake://{path}"

    def _parent(self, path: str) -> str:
        return ""

    def modified(self, path: str) -> Any:
        raise NotImplementedError

    checksum = fsspec.AbstractFileSystem.checksum
    ukey = fsspec.AbstractFileSystem.ukey


@pytest.mark.parametrize(
    "name", ["ETag", "etag", "mtime", "LastModified", "generation", "md5Hash", "CRC", "sha"]
)
def test_whatever_tells_versions_apart_is_used(name: str) -> None:
    keys = {identify_object(Fake({name: value}), "a").key() for value in (1, 2, "1x")}
    assert len(keys) == 3


@pytest.mark.parametrize("info", [{}, {"ETag": None}, {"created": 5, "ino": 3}, {"islink": False}])
def test_what_nothing_identifies_says_so(info: dict[str, Any]) -> None:
    with pytest.raises(Unidentified, match="no etag, version, checksum or time"):
        identify_object(Fake(info), "a")


def test_a_checksum_of_the_file_systems_own_identifies_too() -> None:
    class Summing(Fake):
        def checksum(self, path: str) -> int:
            return 77

    assert identify_object(Summing({}), "a").version == '{"checksum": "77"}'


def test_places_differ_by_what_says_where_and_not_by_credentials() -> None:
    def place(**options: Any) -> str:
        return place_of(Fake({}, **options))

    there = {"client_kwargs": {"endpoint_url": "http://one"}}
    assert place(**there) == place(**there, key="K", secret="S", token="T")
    assert place(**there) == place(**there, use_listings_cache=False)
    assert place(**there) != place(client_kwargs={"endpoint_url": "http://two"})
    assert "hidden" not in place(client_kwargs={"aws_secret_access_key": "hidden"})
    with pytest.raises(Unidentified, match="option client is a object object"):
        place(client=object())


def test_a_file_system_in_a_file_system_is_part_of_the_place(memory: Any) -> None:
    assert place_of(DirFileSystem("/a", memory)) != place_of(DirFileSystem("/b", memory))


# -- reading ---------------------------------------------------------------------------------


def test_an_object_is_read_once_and_a_changed_one_again(memory: Any, reader: ObjectReader) -> None:
    memory.pipe("/x", DATA)
    assert [bytes(reader.read(memory, "/x")) for _ in range(3)] == [DATA] * 3
    memory.pipe("/x", DATA[::-1])
    assert bytes(reader.read(memory, "/x")) == DATA[::-1]
    stats = reader.stats()
    assert (stats["hits"], stats["misses"], stats["served_bytes"]) == (2, 2, 2 * len(DATA))
    assert stats["storage_bytes"] == stats["admitted_bytes"] == 2 * len(DATA)
    assert reader.cache.verify() == []


def test_recheck_s_spares_the_request_of_a_hit(server: MoodyServer, reader: ObjectReader) -> None:
    fs, path = http(), f"{server.url}/a"
    trusting = ObjectReader(reader.cache, recheck_s=3600)
    for each in (trusting, trusting, trusting):
        assert bytes(each.read(fs, path)) == DATA
    # The last asks whether it is still the same.
    assert server.requests == [("HEAD", "/a"), ("GET", "/a"), ("HEAD", "/a")]
    assert bytes(reader.read(fs, path)) == DATA
    assert server.requests[3:] == [("HEAD", "/a")]
    del fs


def test_objects_nothing_identifies_are_delivered_and_never_held(
    server: MoodyServer, reader: ObjectReader
) -> None:
    server.etags = False
    fs = http()
    for _ in range(2):
        assert bytes(reader.read(fs, f"{server.url}/a")) == DATA
    server.etags, server.sizes = True, False
    assert bytes(reader.read(fs, f"{server.url}/a")) == DATA
    assert reader.stats()["bypassed"] == {
        "the storage gives no etag, version, checksum or time of the object": 2,
        "the storage does not say the object's size": 1,
    }
    assert reader.cache.stats()["items"] == 0
    del fs


def test_a_full_cache_reads_from_storage(memory: Any, shm_dir: Path) -> None:
    with MinIOCache(3 * len(DATA), name="t-full", form="original") as cache:
        reader = ObjectReader(cache)
        for i in range(5):
            memory.pipe(f"/{i}", DATA)
        for _ in range(2):
            for i in range(5):
                assert bytes(reader.read(memory, f"/{i}")) == DATA
        stats = reader.stats()
        assert (stats["hits"], stats["misses"]) == (3, 7)


# -- storage that misbehaves -----------------------------------------------------------------


@pytest.mark.parametrize("mood", [429, 503, 500, "cut", "reset"])
def test_temporary_trouble_is_retried_and_counted(
    mood: int | str, server: MoodyServer, reader: ObjectReader
) -> None:
    server.moods["/a"] = [mood, mood]
    fs = http()
    assert bytes(reader.read(fs, f"{server.url}/a")) == DATA
    stats = reader.stats()
    ours = 1 if mood == "reset" else 2  # aiohttp itself asks once more after a reset
    assert (stats["retries"], stats["errors"], stats["misses"]) == (ours, 0, 1)
    assert stats["waited_s"] > 0
    assert server.gets("/a") == 3
    del fs


def test_a_refused_look_is_retried_though_fsspec_calls_it_not_found(
    server: MoodyServer, reader: ObjectReader
) -> None:
    server.head_moods["/a"] = [503]
    server.moods["/a"] = [503]  # fsspec asks by GET when HEAD fails
    fs = http()
    assert bytes(reader.read(fs, f"{server.url}/a")) == DATA
    assert reader.stats()["retries"] == 1
    del fs


def test_a_server_that_does_not_answer_is_asked_again(
    server: MoodyServer, reader: ObjectReader
) -> None:
    server.moods["/a"] = ["stall"]
    fs = http()
    patient = ObjectReader(reader.cache, reader.retry, timeout_s=0.5)
    assert bytes(patient.read(fs, f"{server.url}/a")) == DATA
    assert patient.stats()["retries"] == 1
    del fs


def test_a_server_that_never_answers_is_a_timeout_that_names_the_object(
    server: MoodyServer, reader: ObjectReader
) -> None:
    server.moods["/a"] = ["stall"] * 2
    hasty = ObjectReader(reader.cache, Retry(2, 0.001, 0.01), timeout_s=0.3)
    fs = http()
    with pytest.raises(TimeoutError, match=r"/a after 2 attempts.*timeout_s") as caught:
        hasty.read(fs, f"{server.url}/a")
    assert isinstance(caught.value, ItemError) and caught.value.path == f"{server.url}/a"
    del fs, caught


def test_an_object_replaced_while_it_is_read_is_read_anew_and_never_mixed_up(
    server: MoodyServer, reader: ObjectReader
) -> None:
    server.replacement = DATA[::-1]  # of the same length: only the etag tells
    server.moods["/a"] = ["replace"]
    fs = http()
    assert bytes(reader.read(fs, f"{server.url}/a")) == DATA[::-1]
    assert server.gets("/a") == 2 and reader.cache.stats()["items"] == 1
    server.objects["/a"] = DATA  # the old object again: not what is held under its name
    assert bytes(reader.read(fs, f"{server.url}/a")) == DATA
    del fs


def test_what_stays_cut_off_is_refused(server: MoodyServer, reader: ObjectReader) -> None:
    server.moods["/a"] = ["cut"] * 4
    fs = http()
    with pytest.raises(ItemError, match=r"sample 7: cannot read http.*/a after 4 attempts") as e:
        reader.read(fs, f"{server.url}/a", index=7)
    assert e.value.index == 7
    assert reader.cache.stats()["items"] == 0 and reader.stats()["errors"] == 1
    del fs, e


@pytest.mark.parametrize(
    ("mood", "kind", "advice"),
    [
        (404, FileNotFoundError, "moved or removed"),
        (403, PermissionError, "credentials"),
        (401, PermissionError, "credentials"),
    ],
)
def test_refusals_for_good_are_not_retried(
    mood: int, kind: type[Exception], advice: str, server: MoodyServer, reader: ObjectReader
) -> None:
    server.head_moods["/a"], server.moods["/a"] = [mood], [mood]
    fs = http()
    with pytest.raises(kind, match=advice) as caught:
        reader.read(fs, f"{server.url}/a")
    assert isinstance(caught.value, ItemError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.errno == caught.value.errno
    assert reader.stats()["retries"] == 0
    del fs, caught


def test_trouble_that_fsspec_calls_not_found_is_told_as_what_it_is(
    server: MoodyServer, reader: ObjectReader
) -> None:
    hasty = ObjectReader(reader.cache, Retry(1))
    server.head_moods["/a"], server.moods["/a"] = [503], [503]
    fs = http()
    with pytest.raises(ItemError, match=r"/a: ClientResponseError: 503.*fewer requests") as caught:
        hasty.read(fs, f"{server.url}/a")
    assert not isinstance(caught.value, FileNotFoundError)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
        with pytest.raises(ItemError, match=r"Connect call failed.*Look at the network") as caught:
            hasty.read(fs, nobody)
    assert caught.value.errno == errno.ECONNREFUSED
    assert not isinstance(caught.value, FileNotFoundError)
    del fs, caught


def test_a_folder_is_no_object(tmp_path: Path, reader: ObjectReader) -> None:
    with pytest.raises(IsADirectoryError, match=r"an object, not a folder"):
        reader.read(fsspec.filesystem("file"), str(tmp_path))


def test_throttling_that_does_not_end_says_what_to_do(
    server: MoodyServer, reader: ObjectReader
) -> None:
    server.moods["/a"] = [429] * 9
    fs = http()
    with pytest.raises(ItemError, match=r"429.*fewer workers or jobs"):
        reader.read(fs, f"{server.url}/a")
    assert server.gets("/a") == 4
    del fs


# -- the policy ------------------------------------------------------------------------------


class Answer(Exception):
    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}


class S3Error(Exception):  # as botocore's ClientError
    def __init__(self, code: str, status: int) -> None:
        self.response = {
            "Error": {"Code": code},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (Answer(429), True),
        (Answer(503), True),
        (Answer(404), False),
        (Answer(400), False),
        (S3Error("SlowDown", 503), True),
        (S3Error("RequestTimeout", 400), True),
        (S3Error("AccessDenied", 403), False),
        (caused(OSError(16, "Please reduce your request rate."), S3Error("SlowDown", 503)), True),
        (caused(FileNotFoundError("x"), Answer(503)), True),
        (caused(FileNotFoundError("x"), Answer(404)), False),
        (caused(PermissionError("x"), S3Error("AccessDenied", 403)), False),
        (FileNotFoundError(2, "x"), False),
        (ConnectionResetError(104, "x"), True),
        (TimeoutError(), True),
        (fsspec.exceptions.FSTimeoutError(), True),
        (InconsistentReadError("x"), True),
        (OSError(5, "Input/output error"), False),
        (ValueError("x"), False),
    ],
)
def test_what_is_temporary(error: Exception, temporary: bool) -> None:
    assert is_temporary(error) == temporary


def waits(retry: Retry, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("coordl.fetch.retry.time.sleep", slept.append)

    def operation() -> None:
        raise error

    told: list[float] = []
    with pytest.raises(type(error)):
        retry.call(operation, told.append)
    assert told == slept
    return slept


def test_waits_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = waits(Retry(attempts=6, first_s=1, longest_s=5), TimeoutError(), monkeypatch)
    assert len(slept) == 5
    for wait_s, most in zip(slept, [1, 2, 4, 5, 5], strict=True):
        assert most / 2 <= wait_s <= most


def test_what_the_server_asks_to_wait_is_waited_within_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retry = Retry(attempts=2, first_s=0.1, longest_s=5)
    assert waits(retry, Answer(429, {"Retry-After": "3"}), monkeypatch) == [3]
    assert waits(retry, Answer(429, {"Retry-After": "300"}), monkeypatch) == [5]


def test_an_error_for_good_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(Retry(), FileNotFoundError(2, "x"), monkeypatch) == []


@pytest.mark.parametrize(
    "bad", [{"attempts": 0}, {"first_s": -1.0}, {"first_s": 5.0, "longest_s": 1.0}]
)
def test_a_policy_that_cannot_be_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        Retry(**bad)


def test_retries_leave_the_scripts_draws_alone(memory: Any, reader: ObjectReader) -> None:
    import random

    counter = itertools.count()
    random.seed(4)
    expected = random.Random(4).random()

    def operation() -> int:
        if next(counter) < 2:
            raise TimeoutError
        return 1

    assert reader.retry.call(operation, lambda _: None) == 1
    assert random.random() == expected
