"""ItemErrors that are OSErrors too.

torch's own loader lets FileNotFoundError or PermissionError through, and training scripts catch
those. So a file that cannot be read raises an exception that is both: `except ItemError` knows the
sample, `except FileNotFoundError` works as before. They are ordinary module-level classes, not made
on the fly, and can be called with a message alone: torch re-raises a worker's exception that way,
pickled by the name of its class.
"""

from __future__ import annotations

import errno as codes
import os

from coordl.errors import ItemError
from coordl.fetch.retry import (
    ChangedObjectError,
    InconsistentReadError,
    causes_of,
    is_temporary,
    status_of,
)


class ItemOSError(ItemError, OSError):
    """The kernel refused to give a sample's file. `errno` and `filename` are set as in OSError."""

    def __init__(
        self, message: str, index: int = -1, path: str = "", errno: int | None = None
    ) -> None:
        super().__init__(message, index, path)
        self.errno = errno
        self.strerror = os.strerror(errno) if errno is not None else None
        self.filename = path or None

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.index, self.path, self.errno)


class ItemNotFoundError(ItemOSError, FileNotFoundError):
    """A sample's file does not exist."""


class ItemPermissionError(ItemOSError, PermissionError):
    """A sample's file may not be read."""


class ItemIsADirectoryError(ItemOSError, IsADirectoryError):
    """A sample's path is a directory."""


class ItemTimeoutError(ItemOSError, TimeoutError):
    """A sample's storage did not answer in time."""


_CLASSES: dict[int, type[ItemOSError]] = {
    codes.ENOENT: ItemNotFoundError,
    codes.EACCES: ItemPermissionError,
    codes.EPERM: ItemPermissionError,
    codes.EISDIR: ItemIsADirectoryError,
    codes.ETIMEDOUT: ItemTimeoutError,
}

_ADVICE = {
    codes.ENOENT: "It was listed but is not there: was it moved or removed since?",
    codes.EACCES: "Give this user read permission, or leave the file out of the data set.",
    codes.EPERM: "Give this user read permission, or leave the file out of the data set.",
    codes.EISDIR: "A sample must be a file.",
    codes.EINVAL: "A sample must be a plain file, not a pipe, socket or device.",
    codes.EMFILE: "Raise the limit of open files (ulimit -n).",
    codes.EIO: "The storage failed; look into the kernel's log.",
}


def damaged_item(index: int, name: str, shard: str) -> ItemError:
    """The exception for sample `index`, packed from `name`, whose bytes in `shard` are wrong."""
    return ItemError(
        f"sample {index}: {name} is damaged in {shard}: its bytes are not those of the index. "
        "Copy the shard again from where it is whole, or pack anew (coordl pack --force); a data "
        "set that was packed anew must be opened anew.",
        index,
        shard,
    )


def changed_shard(path: str) -> str:
    """What is wrong with a shard of a user's that is another file than the one that was indexed."""
    return (
        f"{path} is not as it was when its index was made, so no offset in it holds; make the data "
        "set object anew, which indexes it anew"
    )


def unreadable_item(errno: int, index: int, path: str) -> ItemOSError:
    """The exception for sample `index`, whose file the kernel refused with `errno`."""
    message = f"sample {index}: cannot read {path}: {os.strerror(errno)}."
    advice = _ADVICE.get(errno)
    kind = _CLASSES.get(errno, ItemOSError)
    return kind(f"{message} {advice}" if advice else message, index, path, errno)


def unreadable_object(
    error: Exception, url: str, index: int = -1, attempts: int = 1
) -> ItemOSError:
    """The exception for what remote storage did not give, of sample `index` where that is known.

    FileNotFoundError, PermissionError and TimeoutError stay catchable as such.
    """
    number, advice = _reason(error)
    *_, first = causes_of(error)
    told = [_told(error)] if error is first else [_told(error), _told(first)]
    if isinstance(error, FileNotFoundError) and number != codes.ENOENT:
        told = told[-1:]  # fsspec's HTTP file system says so whatever happened
    said = ", from ".join(told)
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    whose = f"sample {index}: " if index >= 0 else ""
    kind = _CLASSES.get(number, ItemOSError)
    return kind(f"{whose}cannot read {url}{tried}: {said}. {advice}", index, url, number)


def _told(error: BaseException) -> str:
    # A library's message may be all of an HTML page.
    said = " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())
    return said if len(said) <= 300 else said[:300] + "..."


def _reason(error: Exception) -> tuple[int, str]:
    """(errno, what to do)."""
    status = status_of(error)
    if isinstance(error, InconsistentReadError):
        return codes.EIO, "Nothing may write to the data set while it is read."
    if isinstance(error, ChangedObjectError):
        return codes.EIO, "It changed since it was listed: make the data set anew."
    if isinstance(error, IsADirectoryError):
        return codes.EISDIR, "A sample must be an object, not a folder of them."
    if status == 429 or status == 503:
        return codes.EBUSY, (
            "The storage asks for fewer requests: use fewer workers or jobs, or ask for a higher "
            "rate there; what the cache holds is not asked for again."
        )
    if status in (401, 403) or (isinstance(error, PermissionError) and status is None):
        return codes.EACCES, "Check the credentials, and what they may read."
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and not is_temporary(error)):
        return codes.ENOENT, "Was it moved or removed since it was listed?"
    if isinstance(error, TimeoutError) or status in (408, 504):
        return codes.ETIMEDOUT, (
            "The storage did not answer in time: look at the network, or allow more (timeout_s)."
        )
    numbers = (getattr(one, "errno", None) for one in causes_of(error))
    number = next((each for each in numbers if isinstance(each, int) and each), codes.EIO)
    return number, "Look at the network and the storage; reading may be started again."
