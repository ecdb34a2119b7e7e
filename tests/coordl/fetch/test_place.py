"""URLs of what lies in a place: complete, and back to the file system's paths."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from coordl.fetch.place import Place, is_url


class FileSystem:
    """Of which only this matters."""

    def _strip_protocol(self, path: str) -> str:
        return path


@pytest.mark.parametrize(
    ("url", "root", "path", "complete"),
    [
        ("s3://b/t", "b/t", "b/t/a/1.jpg", "s3://b/t/a/1.jpg"),
        ("s3://b/t/", "b/t/", "b/t/a/1.jpg", "s3://b/t/a/1.jpg"),
        ("s3://b", "b", "b/a/1.jpg", "s3://b/a/1.jpg"),
        ("memory://t", "/t", "/t/a/1.jpg", "memory://t/a/1.jpg"),
        ("file://t", "/home/t", "/home/t/a/1.jpg", "file:///home/t/a/1.jpg"),
        ("http://h/t", "http://h/t", "http://h/t/a/1.jpg", "http://h/t/a/1.jpg"),
        ("ftp://u@h/pub/t", "/pub/t", "/pub/t/a/1.jpg", "ftp://u@h/pub/t/a/1.jpg"),
        ("sftp://h/", "/", "/a/1.jpg", "sftp://h/a/1.jpg"),
        ("github://o:r@v/t", "t", "t/a/1.jpg", "github://o:r@v/t/a/1.jpg"),
        ("zip://::s3://b/t.zip", "", "a/1.jpg", "zip://a/1.jpg::s3://b/t.zip"),
        ("zip://c::/t.zip", "c", "c/a/1.jpg", "zip://c/a/1.jpg::/t.zip"),
        ("simplecache::s3://b/t", "b/t", "b/t/a/1.jpg", "simplecache::s3://b/t/a/1.jpg"),
        ("simplecache::/x/t", "/x/t", "/x/t/a/1.jpg", "simplecache::/x/t/a/1.jpg"),
    ],
)
def test_urls_are_complete_and_lead_back(
    monkeypatch: pytest.MonkeyPatch, url: str, root: str, path: str, complete: str
) -> None:
    def opened(place: Any) -> tuple[FileSystem, str]:
        return FileSystem(), root

    monkeypatch.setattr(Place, "_opened", opened)
    place = Place(url)
    assert place.below + "a/1.jpg" == path
    assert place.url_of(path) == complete and place.has(complete)
    assert place.path_of(complete) == path
    assert pickle.loads(pickle.dumps(place)).path_of(complete) == path


def test_urls_are_told_from_folders() -> None:
    assert all(map(is_url, ["s3://b", "simplecache::s3://b", "abfs+x://c", "file:///x"]))
    assert not any(map(is_url, ["/a/b", "a/b", "C:/x", "/a::b", "./s3://b", b"s3://b", None]))
