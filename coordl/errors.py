"""All exceptions of coordl.

    Exception
    └── CoordlError             ours: the message says what happened and what to do
        ├── ItemError           one sample could not be fetched or prepared; names index and path
        └── CacheError          the cache cannot be had as asked; says what to change

Bad arguments raise ValueError or TypeError; what the kernel refuses raises OSError with its errno.
"""

from __future__ import annotations


class CoordlError(Exception):
    """Base of the errors coordl raises itself."""


class ItemError(CoordlError):
    """One sample could not be fetched or prepared.

    Attributes:
        index: position of the sample in the data set.
        path: its file.
    """

    def __init__(self, message: str, index: int, path: str) -> None:
        super().__init__(message)
        self.index = index
        self.path = path

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.index, self.path)


class CacheError(CoordlError):
    """The cache cannot be had as asked for."""
