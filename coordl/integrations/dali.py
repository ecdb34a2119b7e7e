"""NVIDIA DALI: a pipeline that decodes what our cache holds, in our loader's order.

DALI is imported only where a pipeline is defined (`Encoded.inputs`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from coordl.delivery.loader import DataLoader
from coordl.errors import StateError
from coordl.fetch.cache import MinIOCache
from coordl.fetch.folder import find_folder
from coordl.sources.encoded import EncodedItems

_REMEMBERED = 16  # minibatches whose states are kept: DALI asks for some ahead of its results

_SAME = (
    "num_workers", "timeout", "worker_init_fn", "multiprocessing_context", "generator",
    "prefetch_factor", "persistent_workers", "in_order", "cache", "seed", "on_error",
    "snapshot_every_n_steps",
)  # fmt: skip


class Encoded:
    """A loader's minibatches as encoded files, for DALI's external_source.

    Iterating makes one pass: minibatches as a tuple of a list of (L,) uint8 arrays, one encoded
    file each, and a list of arrays for each target. Samples and their order are those of the
    loader: its samplers, generator, set_epoch(), workers, cache and on_error. Its transform does
    not run; the target_transform does. Arrays are valid until the next minibatch.

    Args:
        loader: a coordl.DataLoader over one of the data sets coordl knows.

    Raises:
        TypeError: it is another loader.
        ValueError: its data set is none coordl knows, it makes no minibatches, or its cache holds
            items in a form that is not the file's.

    Attributes:
        loader: what reads: stats(), plan() and samplers are there.
    """

    def __init__(self, loader: DataLoader) -> None:
        if not isinstance(loader, DataLoader):
            raise TypeError(f"a coordl.DataLoader is needed, got {type(loader).__qualname__}")
        self.loader = _twin(loader)
        self._begin()

    def _begin(self) -> None:
        self._given = 0
        self._states: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[list[np.ndarray], ...]]:
        self._begin()
        self._states.append(self.loader.state_dict())
        for data, lengths, *targets in self.loader:
            self._given += 1
            self._states.append(self.loader.state_dict())
            ends = np.cumsum(lengths.numpy())[:-1]
            yield (np.split(data.numpy(), ends), *(list(column) for column in targets))

    def inputs(self, targets: int = 1, **options: Any) -> Any:
        """fn.external_source over this, within a pipeline's definition: (encoded, target, ...).

        At the end of a pass the pipeline raises StopIteration; after its reset() the next one
        begins.

        Args:
            targets: how many a sample has: those in its tuple, or 1.
            options: for external_source.
        """
        from nvidia.dali import fn

        return fn.external_source(
            source=self, num_outputs=1 + targets, batch=True, cycle="raise", **options
        )

    def state_dict(self, taken: int | None = None) -> dict[str, Any]:
        """The loader's state after what was given; or after the first `taken` minibatches that were
        given since the pass began, or was gone on with.

        A pipeline asks for minibatches before it gives what became of earlier ones: to go on after
        what came out of it, say how many that were.

        Raises:
            StateError: that state is not known any more, or so many were not given yet.
        """
        if taken is None:
            return self.loader.state_dict()
        behind = self._given - taken
        if not 0 <= behind < len(self._states):
            raise StateError(
                f"taken={taken}: of this pass's {self._given} minibatches given so far, states "
                f"after {self._given - len(self._states) + 1} to {self._given} are known"
            )
        return self._states[-1 - behind]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass goes on from a state of this, or of the loader's: see DataLoader."""
        self._begin()
        self.loader.load_state_dict(state)


def _twin(loader: DataLoader) -> DataLoader:
    """The loader over the same samples, encoded."""
    folder = find_folder(loader.dataset)
    if isinstance(folder, str):
        raise ValueError(f"there are no encoded items to hand on: {folder}")
    cache = loader.cache
    if isinstance(cache, MinIOCache) and cache.form not in ("original", "auto"):
        raise ValueError(
            f"the loader's cache holds JPEGs {cache.form}, which DALI does not decode; give it a "
            'MinIOCache(form="original")'
        )
    if loader.batch_size is not None:
        order: dict[str, Any] = {"batch_size": loader.batch_size, "sampler": loader.sampler,
                                 "drop_last": loader.drop_last}  # fmt: skip
    elif loader.batch_sampler is not None:
        order = {"batch_sampler": loader.batch_sampler}
    else:
        raise ValueError("batch_size=None makes no minibatches: give the loader a batch_size")
    same = {name: getattr(loader, name) for name in _SAME}
    return DataLoader(EncodedItems(folder), collate_fn=_joined, **order, **same)


def _joined(samples: Sequence[tuple[np.ndarray, Any]]) -> tuple[Any, ...]:
    """All files of a minibatch as one tensor (which workers write where the consumer reads it),
    their lengths, and each target's column."""
    files = [file for file, _ in samples]
    several = isinstance(samples[0][1], tuple)
    columns = zip(*((target if several else (target,)) for _, target in samples), strict=True)
    return (
        torch.from_numpy(np.concatenate(files)),
        torch.tensor([len(file) for file in files]),
        *([_number(value) for value in column] for column in columns),
    )


def _number(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"DALI takes numbers, and a target is a {type(value).__qualname__}: make it one by the "
            "data set's target_transform"
        )
    return array
