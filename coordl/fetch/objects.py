"""The objects of a data set in remote storage: which they were when listed, and reading them.

A listing says of each object what tells its versions apart, so keys cost no request. What is to be
held is looked at once more when it was read: the cache never holds another object under a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coordl.errors import ItemError
from coordl.fetch.failure import unreadable_object
from coordl.fetch.item import Items
from coordl.fetch.place import Place
from coordl.fetch.remote import (
    TIMEOUT_S_PER_MIB,
    Identity,
    Unidentified,
    identify_object,
    place_of,
    same_version,
    timed,
)
from coordl.fetch.retry import ChangedObjectError, InconsistentReadError, Retry
from coordl.fetch.texts import Texts
from coordl.user_warning import warn_user

T = TypeVar("T")
THREADS = 16  # requests at a time, of each process
_UNKNOWN = -1  # of a size


class Objects:
    """Objects of one place, as they were when they were listed.

    Threads may share it, forked and spawned processes go on with it.

    Args:
        place: where they are.
        urls: N of them.
        sizes: (N,) int64 bytes, -1 where the listing does not say.
        versions: what tells each object's versions apart; empty where the listing does not say.

    Attributes:
        retry: how temporary errors are met.
        timeout_s: of one request, and a second more for each MiB; for file systems that fsspec
            runs in its event loop, others have limits of their own.
    """

    threads = THREADS

    def __init__(
        self, place: Place, urls: Sequence[str], sizes: NDArray[np.int64], versions: Texts
    ) -> None:
        self.place = place
        self.urls = urls
        self.sizes = sizes
        self.versions = versions
        self.retry = Retry()
        self.timeout_s = 60.0
        self._items: Items | None = None
        self._chosen: Objects | None = None

    def chosen(self, urls: list[str]) -> Objects:
        """Those of `urls`, in their order, as they were listed; those not listed, unseen."""
        if urls == self.urls:
            return self
        if self._chosen is None or urls != self._chosen.urls:
            rows = {url: row for row, url in enumerate(self.urls)}
            numbers = np.array([rows.get(url, -1) for url in urls], np.int64)
            sizes = np.where(numbers < 0, _UNKNOWN, self.sizes[numbers])
            self._chosen = self._like(urls, sizes, self.versions.chosen(numbers.tolist()))
        return self._chosen

    def _like(self, urls: Sequence[str], sizes: NDArray[np.int64], versions: Texts) -> Objects:
        other = Objects(self.place, urls, sizes, versions)
        other.retry, other.timeout_s = self.retry, self.timeout_s
        return other

    def named_by(self, urls: Sequence[str]) -> Objects:
        """The same objects with their URLs in another kind of list."""
        return self._like(urls, self.sizes, self.versions)

    @property
    def cache_name(self) -> str:
        """The arena all readers of the same folder share: by storage, without credentials, and
        URL."""
        return self._name([self.place.url_of(self.place.root)])

    @property
    def list_name(self) -> str:
        """That of readers of the same list of objects."""
        return self._name(self.urls)

    def _name(self, urls: Iterable[str]) -> str:
        fs = self.place.fs
        try:
            where = place_of(fs)
        except Unidentified:
            where = f"{type(fs).__module__}.{type(fs).__qualname__}"
        digest = blake2b(digest_size=12, person=b"objects")
        for text in (where, *urls):
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    # -- identity ----------------------------------------------------------------------------

    def items(self, keyed: bool) -> Items:
        """All of them; `keyed`: with keys, which is asked of the storage where the listing did not
        tell versions or sizes apart, once. Keys are zeros where nothing does.

        Warns:
            UserWarning: some cannot be held, with the reason.

        Raises:
            ItemError: of the first, where none of them could be looked at.
        """
        if not keyed:
            return self._as_items(np.zeros((len(self.urls), 2), np.uint64))
        if self._items is None:
            self._items = self._as_items(self._keys())
        return self._items

    def _as_items(self, keys: NDArray[np.uint64]) -> Items:
        sizes = np.maximum(self.sizes, 0)
        return Items(self.urls, sizes, np.zeros(len(sizes), np.int64), keys, reader=self)

    def _keys(self) -> NDArray[np.uint64]:
        keys = np.zeros((len(self.urls), 2), np.uint64)
        try:
            where = place_of(self.place.fs)
        except Unidentified as reason:
            self._warn(len(keys), str(reason))
            return keys
        self._look()
        for row in np.flatnonzero(self.versions.lengths()).tolist():
            url, size = self.urls[row], int(self.sizes[row])
            keys[row] = Identity(url, where, size, self.versions[row]).key()
        return keys

    def _look(self) -> None:
        """Looks at the objects of which the listing said too little."""
        rows = np.flatnonzero((self.sizes < 0) | (self.versions.lengths() == 0)).tolist()
        if not rows:
            return
        with ThreadPoolExecutor(THREADS, "coordl-look") as pool:
            found = dict(zip(rows, pool.map(self._identified, rows), strict=True))
        errors = [one for one in found.values() if isinstance(one, ItemError)]
        if len(errors) == len(self.urls):  # not of any object alone
            raise errors[0]
        looked = {row: one for row, one in found.items() if isinstance(one, Identity)}
        sizes = self.sizes.copy()
        for row, one in found.items():
            if not isinstance(one, ItemError) and one.size is not None:
                sizes[row] = one.size
        self.sizes = sizes
        self.versions = Texts.of(
            looked[row].version if row in looked else self.versions[row]
            for row in range(len(sizes))
        )
        reasons = [str(one) for one in found.values() if isinstance(one, Unidentified)]
        if reasons:
            self._warn(len(reasons), reasons[0])

    def _identified(self, row: int) -> Identity | Unidentified | ItemError:
        def look() -> Identity | Unidentified:
            try:
                return identify_object(self.place.fs, self._path(row), self.timeout_s)
            except Unidentified as reason:
                return reason

        try:
            return self._tried(look, self.urls[row], row)
        except ItemError as error:
            return error  # for its turn to say, at its place

    def _warn(self, count: int, reason: str) -> None:
        warn_user(
            f"{count:,} of {len(self.urls):,} objects of {self.place.url} are read in every epoch, "
            f"the cache holds none of them: {reason}."
        )

    # -- reading -----------------------------------------------------------------------------

    def get(self, url: str, index: int = -1) -> bytes:
        """The whole object as it is now; `index` is its sample's, for errors.

        Raises:
            ItemError: it cannot be read; an OSError as well, see unreadable_object().
        """
        fs, path = self.place.fs, self.place.path_of(url)
        return self._tried(lambda: bytes(timed(fs.cat_file, self.timeout_s)(path)), url, index)

    def read(self, row: int, index: int, checked: bool) -> tuple[bytes, bool]:
        """The whole object, and whether it is sure to be the one that was listed.

        Args:
            row: which. index: its sample's, for errors.
            checked: one more request makes sure; else only its length does.

        Raises:
            ItemError: it cannot be read, was cut off, or is another by now.
        """
        return self._tried(lambda: self._read(row, checked), self.urls[row], index)

    def _read(self, row: int, checked: bool) -> tuple[bytes, bool]:
        fs, path, size = self.place.fs, self._path(row), int(self.sizes[row])
        limit_s = self.timeout_s + TIMEOUT_S_PER_MIB * max(0, size) / 2**20
        data = bytes(timed(fs.cat_file, limit_s)(path))
        short = size >= 0 and len(data) != size
        same = self._is_listed(fs, path, row) if checked or short else False
        if short:
            raise InconsistentReadError(
                f"{len(data):,} bytes came of the {size:,} the storage says it has"
            )
        return data, same

    def _is_listed(self, fs: Any, path: str, row: int) -> bool:
        """Whether the object there now is the one listed, for sure; raises where it is not."""
        size, version = int(self.sizes[row]), self.versions[row]
        try:
            now = identify_object(fs, path, self.timeout_s)
        except Unidentified:
            return False
        same = same_version(version, now.version) if version else None
        if now.size != size or same is False:
            raise ChangedObjectError("it is another object than the one that was listed")
        return bool(same)

    def _path(self, row: int) -> str:
        return self.place.path_of(self.urls[row])

    def _tried(self, operation: Callable[[], T], url: str, index: int) -> T:
        return tried(self.retry, operation, url, index)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_items": None, "_chosen": None}


def tried(retry: Retry, operation: Callable[[], T], url: str, index: int = -1) -> T:
    """Its result; temporary errors are tried again, what remains names the URL.

    Raises:
        ItemError: see unreadable_object().
    """
    tries = 1

    def retried(wait_s: float) -> None:
        nonlocal tries
        tries += 1

    try:
        return retry.call(operation, retried)
    except NotADirectoryError:  # a root is a file: nothing failed
        raise
    except (OSError, RuntimeError) as error:
        raise unreadable_object(error, url, index, tries) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] == "builtins":
            raise  # a mistake, or a package that is missing
        raise unreadable_object(error, url, index, tries) from error
