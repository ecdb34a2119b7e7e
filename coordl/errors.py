"""All exceptions of coordl.

    Exception
    └── CoordlError             ours: the message says what happened and what to do
        ├── ItemError           one sample could not be fetched or prepared; names index and path
        ├── CacheError          the cache cannot be had as asked; says what to change
        ├── PackedDataError     a packed data set is damaged, unfinished or none; names the file
        ├── GroupError          a loader cannot join a group of jobs; names what differs
        ├── PeerError           other servers cannot be had as asked; says what to change
        ├── StateError          a state cannot be gone on from with this loader; says why
        └── TarShardError       a tar is damaged, or cannot be read by range; names it and the byte

Bad arguments raise ValueError or TypeError; what the kernel refuses raises OSError with its errno.

What a sample fails with keeps its class: `item_error(UnidentifiedImageError(...))` is one, and an
ItemError as well, so an `except` written for torch's loader goes on working.
"""

from __future__ import annotations

import copyreg
import functools
from typing import Any


class CoordlError(Exception):
    """Base of the errors coordl raises itself."""


class ItemError(CoordlError):
    """One sample could not be fetched or prepared.

    Attributes:
        index: position of the sample in the data set; -1 when it is not known here.
        path: its file.
    """

    # Defaults: torch rebuilds a worker's exception in the parent from its message alone.
    def __init__(self, message: str, index: int = -1, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.index = index
        self.path = path

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple:
        errno = getattr(self, "errno", None)
        return _rebuild, (type(self), self.message, self.index, self.path, errno)


class CacheError(CoordlError):
    """The cache cannot be had as asked for."""


class PackedDataError(CoordlError):
    """A packed data set cannot be read, made or gone on with as asked."""


class PeerError(CoordlError):
    """The partitioned cache cannot be had as asked for: no token, an address, another version."""


class TarShardError(CoordlError):
    """A tar shard cannot be read by range."""


class GroupError(CoordlError):
    """A loader and the group it names do different things, or have no memory to share."""


class StateError(CoordlError, AssertionError):
    """A loader cannot go on from a state: it is another's, or what it needs has changed.

    An AssertionError as well: that is what torchdata's StatefulDataLoader raises there.
    """


class Skip:
    """Type of SKIP."""

    def __repr__(self) -> str:
        return "coordl.SKIP"

    def __reduce__(self) -> str:
        return "SKIP"


SKIP = Skip()  # what a loader's on_error function returns to leave the sample out


class _Combined(type):
    """Metaclass of the classes item_error() makes: it is how pickle finds out to make them anew."""


@functools.cache
def _combine(cause: Any) -> Any:
    return _Combined(f"Item{cause.__name__}", (ItemError, cause), {"__module__": __name__})


def _reduce(made: Any) -> tuple[Any, tuple[type]]:
    return _combine, (made.__bases__[1],)


copyreg.pickle(_Combined, _reduce)


def _rebuild(made: Any, message: str, index: int, path: str, errno: int | None) -> Any:
    error = made(message, index, path)
    if errno is not None:
        error.errno = errno
    return error


def sample_name(index: Any, path: str) -> str:
    """What messages call a sample."""
    return f"sample {index}, {path}" if path else f"sample {index}"


def item_error(cause: Exception, index: int, path: str, what: str = "") -> ItemError:
    """The error of one sample: an ItemError that is also of the cause's class where that can be.

    Args:
        cause: what was raised.
        index: position of the sample in the data set.
        path: its file; empty where the data set does not know it.
        what: what to say of it; the cause's own words by default.
    """
    text = repr(cause) if isinstance(cause, KeyError) else str(cause)  # whose text is but the key
    said = what or (isinstance(cause, OSError) and cause.strerror) or text or repr(cause)
    message = f"{sample_name(index, path)}: {said}"
    if isinstance(cause, ItemError):
        return cause
    kind: Any = type(cause)
    try:
        error = _combine(kind)(message, index, path)
    except TypeError:  # a class that cannot be built from a message, or not be a base
        return ItemError(f"{message} ({type(cause).__name__})", index, path)
    if isinstance(cause, OSError):
        error.errno = cause.errno
        error.filename = path
    return error  # type: ignore[no-any-return]
