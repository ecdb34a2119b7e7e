"""A folder that fsspec opens: its file system, the URLs of what lies below it, and the listing."""

from __future__ import annotations

import os
import re
import threading
from typing import Any

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")


def is_url(root: Any) -> bool:
    """Whether fsspec is meant: "protocol://..." or a chain, "protocol::...". Path objects never."""
    return isinstance(root, str) and _URL.match(root) is not None


class Place:
    """A folder of remote storage.

    Its file system is opened anew in each process, as asynchronous ones do not outlive a fork, and
    in each thread, as fsspec has it for those that are not asynchronous (which may be bound to one
    connection).

    Args:
        url: of the folder; chained URLs ("zip://train::s3://bucket/train.zip") as fsspec has them.
        options: what fsspec.open() would get: credentials, endpoints.

    Raises:
        ImportError: fsspec, or what it needs for the protocol, is not installed.
        ValueError: fsspec does not know the protocol.

    Attributes:
        url: as given. root: the folder's path in its file system.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        self.url = url
        self.options = dict(options or {})
        self._here = threading.local()
        fs, root = self._opened()
        self.root = str(fs._strip_protocol(root)).rstrip("/")
        links = url.split("::")
        at = next((i for i, link in enumerate(links) if "://" in link), len(links) - 1)
        before = "".join(f"{link}::" for link in links[:at])
        spoken = "://" in links[at] and "://" not in self.root  # HTTP's paths are URLs themselves
        self._prefix = before + (links[at].partition("://")[0] + "://" if spoken else "")
        self._suffix = "".join(f"::{link}" for link in links[at + 1 :])

    def _opened(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ImportError(
                f"{self.url} is read through fsspec, which cannot be imported ({error}). Install "
                "it, and what it needs for that storage (s3fs, gcsfs, aiohttp, ...): "
                "pip install 'data-stall-toolkit[remote]'"
            ) from error
        fs, path = url_to_fs(self.url, **self.options)
        return fs, str(path)

    @property
    def fs(self) -> Any:
        """The file system, of this process and thread."""
        pid, fs = getattr(self._here, "opened", (0, None))
        if pid != os.getpid():
            fs = self._opened()[0]
            self._here.opened = os.getpid(), fs
        return fs

    def url_of(self, path: str) -> str:
        """The URL of a path in the file system, complete: fsspec.open() takes it."""
        return f"{self._prefix}{path}{self._suffix}"

    def has(self, url: str) -> bool:
        """Whether a URL is of this file system; of HTTP, any host's."""
        return url.startswith(self._prefix) and url.endswith(self._suffix)

    def path_of(self, url: str) -> str:
        """The path of one of this place's URLs; of any other, what the file system makes of it."""
        if self.has(url):
            return url[len(self._prefix) : len(url) - len(self._suffix)]
        return str(self.fs._strip_protocol(url))

    def listed(self) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Of all objects below: info() by path relative to the root; and the names of folders
        directly below it, empty ones included.

        Asks the storage, past fsspec's cache of listings.

        Raises:
            FileNotFoundError, NotADirectoryError: there is no such folder.
            OSError: and whatever else the file system raises.
        """
        fs, root = self.fs, self.root
        fs.invalidate_cache()
        entries = fs.ls(root, detail=True)
        if [(one["name"].rstrip("/"), one["type"]) for one in entries] == [(root, "file")]:
            raise NotADirectoryError(20, "Not a directory", self.url)
        below = f"{root}/" if root else ""
        folders = {
            one["name"].rstrip("/").removeprefix(below)
            for one in entries
            if one["type"] == "directory"
        }
        found = fs.find(root, detail=True, **_insisting(fs))
        return {
            path.removeprefix(below): info
            for path, info in found.items()
            if path.startswith(below) and info.get("type") != "directory"
        }, folders

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_here": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._here = threading.local()


def _insisting(fs: Any) -> dict[str, str]:
    """What has find() raise where a folder cannot be listed: fsspec's own leaves it out, and the
    data set would be smaller without a word. Flat listings of others raise by themselves."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    kind = type(fs)
    walks = (
        kind._find is AsyncFileSystem._find
        if isinstance(fs, AsyncFileSystem)
        else kind.find is AbstractFileSystem.find
    )
    return {"on_error": "raise"} if walks else {}
