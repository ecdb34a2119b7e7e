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


_CLASSES: dict[int, type[ItemOSError]] = {
    codes.ENOENT: ItemNotFoundError,
    codes.EACCES: ItemPermissionError,
    codes.EPERM: ItemPermissionError,
    codes.EISDIR: ItemIsADirectoryError,
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


def unreadable_item(errno: int, index: int, path: str) -> ItemOSError:
    """The exception for sample `index`, whose file the kernel refused with `errno`."""
    message = f"sample {index}: cannot read {path}: {os.strerror(errno)}."
    advice = _ADVICE.get(errno)
    kind = _CLASSES.get(errno, ItemOSError)
    return kind(f"{message} {advice}" if advice else message, index, path, errno)
