"""What becomes of a sample that cannot be made: an error that names it, a gap, or another one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch.utils.data
from torch.utils.data import IterableDataset, MapDataPipe

from coordl.errors import SKIP, ItemError, item_error, sample_name

SHOWN = 20  # bad samples an epoch's figures list
_TABLES = ("samples", "imgs", "paths", "files", "filenames")  # where data sets keep their paths


def check_on_error(on_error: Any, dataset: Any) -> None:
    """Refuses what on_error cannot be.

    Raises:
        ValueError: a word that is none, or bad samples of an iterable data set, which has no index
            to name one by and cannot go on after it.
        TypeError: neither a word nor a function.
    """
    if isinstance(on_error, str):
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise', 'skip' or a function, got {on_error!r}")
    elif not callable(on_error):
        raise TypeError(f"on_error is 'raise', 'skip' or a function, got {type(on_error).__name__}")
    if on_error != "raise" and isinstance(dataset, IterableDataset | MapDataPipe):
        raise ValueError(
            "on_error is for data sets with an index: an iterable one, or a data pipe, has to pass "
            "over bad samples itself"
        )


@dataclass
class BadSamples:
    """The bad samples of one minibatch, or of one epoch.

    Attributes:
        skipped, replaced: how many were left out, and how many have another in their place.
        first: (index, path, error) of the first SHOWN of them, in the order of their minibatches.
    """

    skipped: int = 0
    replaced: int = 0
    first: list[tuple[Any, str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.first)

    def add(self, other: BadSamples) -> None:
        self.skipped += other.skipped
        self.replaced += other.replaced
        self.first += other.first[: SHOWN - len(self.first)]

    def meet(self, on_error: Any, error: Exception, index: Any, path: str) -> Any:
        """What takes the place of sample `index`: SKIP for nothing.

        Raises:
            Exception: `error` itself, with index and path, where that is what on_error asks for,
                and always where memory is what was missing.
            ValueError: its function returned None, as one does that forgets to return.
        """
        if on_error == "raise" or isinstance(error, MemoryError):
            raise named(error, index, path)
        known = item_error(error, index, path)
        if known is not error:
            known.__cause__ = error
        instead = SKIP if on_error == "skip" else on_error(known)
        if instead is None:
            raise ValueError(
                f"{sample_name(index, path)}: on_error returned None in its place; return a sample "
                "as the data set gives it, or coordl.SKIP"
            ) from error
        if instead is SKIP:
            self.skipped += 1
        else:
            self.replaced += 1
        if len(self.first) < SHOWN:
            self.first.append((known.index, known.path, str(known)))
        return instead


def named(error: Exception, index: Any, path: str) -> Exception:
    """The error as it is: class, arguments and text stay, its traceback ends with the sample."""
    note = sample_name(index, path)
    if not isinstance(error, ItemError) and note not in getattr(error, "__notes__", ()):
        add_note(error, note)
    return error


def add_note(error: BaseException, note: str) -> None:
    """Adds it, unless the exception's class lets nothing be added (a frozen dataclass)."""
    with suppress(AttributeError, TypeError):
        error.add_note(note)


def path_of(dataset: Any, index: Any) -> str:
    """The file of a sample, where the data set keeps a list of them; else empty."""
    try:
        while type(dataset) is torch.utils.data.Subset:
            dataset, index = dataset.dataset, dataset.indices[index]
        for name in _TABLES:
            table = getattr(dataset, name, None)
            if isinstance(table, Sequence) and not isinstance(table, str):
                entry = table[index]
                entry = entry[0] if isinstance(entry, list | tuple) else entry
                if isinstance(entry, str | os.PathLike):
                    return os.fspath(entry)
    except Exception:  # it was asked for an error message only
        pass
    return ""


def sample_path(dataset: Any, index: Any, error: Exception) -> str:
    """The file of a sample that failed: the data set's, or the one the error itself names."""
    path = path_of(dataset, index)
    filename = getattr(error, "filename", None)
    return path or (filename if isinstance(filename, str) else "")


def has_batches(dataset: Any) -> bool:
    """Whether it makes several samples at once. A Subset only hands on what its data set does."""
    while type(dataset) is torch.utils.data.Subset:
        dataset = dataset.dataset
    return bool(getattr(dataset, "__getitems__", None))


def is_beyond(dataset: Any, index: Any, error: Exception) -> bool:
    """Whether the index is none of the data set's: that is the sampler's error, not a sample's."""
    if not isinstance(error, IndexError):
        return False
    try:
        return not -len(dataset) <= index < len(dataset)
    except Exception:  # it has no length, or no order with this index
        return False
