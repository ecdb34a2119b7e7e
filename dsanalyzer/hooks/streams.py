"""Loaders that choose themselves what they read: IterableDataset, and what `wrap` was given.

The tool cannot hand them indices. A pass is then the first so many minibatches of the stream, and
the files behind them are those that are opened meanwhile. That holds where the stream reads the
same files each time it starts; the evidence (bytes read, pages resident) shows where it does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from dsanalyzer.hooks.subset import NotMeasurable, objects_alone
from dsanalyzer.measure import objects
from dsanalyzer.wrapping import Wrapped

FEWEST_BATCHES = 2
# Samples per file below which files are samples; above, they are shards.
MOST_SAMPLES_A_FILE = 4


def is_stream(loader: Any) -> bool:
    """Whether the loader takes no indices."""
    from torch.utils.data import IterableDataset

    return isinstance(loader, Wrapped) or isinstance(loader.dataset, IterableDataset)


def requests(loader: Any, size: int, count: int) -> list[Any]:
    """What stands for indices of `count` minibatches: the fetcher only looks at how many."""
    unbatched = loader.batch_size is None and loader.batch_sampler is None
    return [None if unbatched else [None] * size for _ in range(count)]


def single(loader: Any) -> Any:
    """The request for one sample; for a minibatch, where the data set makes those."""
    return requests(loader, 1, 1)[0]


class Taken:
    """At most `count` minibatches of a loader that cannot be told when to stop."""

    def __init__(self, batches: Iterator[Any], count: int) -> None:
        self._batches = batches
        self._left = count

    def __iter__(self) -> Taken:
        return self

    def __next__(self) -> Any:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return next(self._batches)


def chosen(samples: int, batches: int, opened_file: str, objects_dir: str) -> dict[str, Any]:
    """What subset.choose gives, for the first `batches` of a stream, from the files it opened.

    Returns a JSON-able dict; `why` is None or the reason why nothing but ingestion can be measured.
    """
    try:
        with open(opened_file) as file:
            paths: list[str] = json.load(file)
        if objects.refused(objects_dir):
            raise NotMeasurable(objects.NOT_KEPT)
        return _chosen(samples, batches, [path for path in paths if os.path.isfile(path)])
    except NotMeasurable as reason:
        return {"indices": [], "files": [], "sizes": {}, "why": str(reason)}


def _chosen(samples: int, batches: int, paths: list[str]) -> dict[str, Any]:
    if batches < FEWEST_BATCHES:
        raise NotMeasurable(
            f"the stream ended after {batches} minibatch{'es' if batches != 1 else ''}; at least "
            f"{FEWEST_BATCHES} are needed"
        )
    sizes = {path: size for path in paths if (size := os.path.getsize(path))}
    if any(map(objects.is_object, sizes)):
        sizes = objects_alone(sizes)
    if not sizes:
        raise NotMeasurable(
            "going through the stream opens no file that Python sees (data in memory, opened "
            "beforehand, from a network by other means than fsspec, or by native code), so there "
            "is no fetch to measure that the tool could make cold"
        )
    if samples > MOST_SAMPLES_A_FILE * len(sizes):
        largest = max(sizes, key=lambda path: sizes[path])
        raise NotMeasurable(
            f"the samples are parts of larger files ({samples} samples in {len(sizes)} files, the "
            f"largest {objects.name_of(largest)}), and the tool puts whole files into memory and "
            "out of it. Profile the same data as single files"
        )
    return {
        "indices": list(range(samples)),
        "files": [[path] for path in sizes],
        "sizes": sizes,
        "why": None,
        "batches": batches,
    }
