"""The samples a profile measures on, and the files behind them."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
from collections import Counter, UserDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dsanalyzer.hooks import opens
from dsanalyzer.measure import objects

MOST_DRAWN = 1 << 20  # from a sampler that may never end
PROBED_SAMPLES = 8  # loaded to check what a data set's own list of files claims
# Bytes of the files behind the samples, each time they are opened, over bytes of the files once.
MOST_REPEATED = 4
BESIDE_OBJECTS = 0.05  # of all bytes that samples are read from may be of files beside objects
FROM_NETWORK = 1024  # bytes received per sample from which on samples come from there


class NotMeasurable(Exception):
    """Why prep and fetch cannot be told apart on this loader."""


def describe(loader: Any, ranks: int = 1) -> dict[str, Any]:
    """What the report says about a loader, of `ranks` that have one like it."""
    dataset = loader.dataset
    context = loader.multiprocessing_context
    method = context.get_start_method() if context else multiprocessing.get_start_method()
    own = type(dataset) if loader.__class__.__name__ == "Wrapped" else type(loader)
    return {
        "class": f"{own.__module__}.{own.__qualname__}",
        "batch_size": loader.batch_size or getattr(loader.batch_sampler, "batch_size", None),
        "num_workers": loader.num_workers,
        "prefetch_factor": loader.prefetch_factor,
        "dataset_class": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "dataset_samples": _epoch(loader, ranks),
        "ranks": ranks,
        "start_method": method if loader.num_workers else None,
        "holds_cache": getattr(loader, "cache", None) is not None,
    }


def batch_size(loader: Any) -> int | None:
    """Samples per minibatch as the job configured them; None where its batch sampler decides."""
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    return int(size) if size else None


def available(loader: Any) -> int | None:
    """Samples of an epoch of this process; None where the loader does not know.

    What its sampler draws. A batch sampler that gives a whole minibatch less than that (a rank's
    share of it, as Accelerate makes them) or has no sampler counts by its own length.
    """
    batches, sampler = loader.batch_sampler, _sampler(loader)
    drawn = _length(sampler)
    if isinstance(batches, list):
        return sum(map(len, batches))
    count, size = _length(batches), batch_size(loader)
    given = None if count is None or size is None else count * size
    if sampler is None and given is not None and (whole := _length(loader.dataset)) is not None:
        return min(given, whole) if given - whole < (size or 0) else given
    if drawn is not None and given is not None and given + (size or 0) <= drawn:
        return given
    return drawn if drawn is not None else _length(loader.dataset)


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except (TypeError, NotImplementedError):
        return None


def _sampler(loader: Any) -> Any:
    """What draws single indices; what a batch sampler calls so may be one itself, as timm's is."""
    sampler = getattr(loader.batch_sampler, "sampler", None)
    while hasattr(sampler, "batch_size") and hasattr(sampler, "drop_last"):
        sampler = getattr(sampler, "sampler", None)
    return sampler


def _epoch(loader: Any, ranks: int) -> int | None:
    """Samples of an epoch of all ranks; of the data set, where a sampler fills up its last ones."""
    own, whole = available(loader), _length(loader.dataset)
    if own is None or ranks == 1:
        return own
    filled = ranks * (batch_size(loader) or 1)
    return whole if whole is not None and abs(own * ranks - whole) < filled else own * ranks


def samples_in(batch: Any) -> int:
    """Samples of a minibatch, where nobody saw the indices it was made of.

    Of tensors their first dimension. But a tuple of tuples (`tuple(zip(*samples))`, as for
    detection) has fields of as many samples, and a list of tuples, or of mappings with the same
    keys, is one of samples.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    if isinstance(batch, Mapping):
        fields = list(batch.values())
        sized = [one for one in fields if isinstance(one, list | tuple)]
        if fields and len(sized) == len(fields) and not _has_tensors(fields):
            return len(sized[0])
        batch = fields
    elif isinstance(batch, list | tuple) and batch:
        if all(isinstance(one, Mapping) for one in batch):
            if len({tuple(one) for one in batch}) == 1:
                return len(batch)
        elif all(isinstance(one, tuple) for one in batch):
            return len(batch[0]) if isinstance(batch, tuple) else len(batch)
    for leaf in tree_leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 0:
            return int(leaf.shape[0])
    return len(batch) if hasattr(batch, "__len__") else 1


def _has_tensors(batch: Any) -> bool:
    import torch
    from torch.utils._pytree import tree_leaves

    return any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(batch))


def sample_shape(batch: Any) -> list[int] | None:
    """Shape of one sample: the first tensor's, without its first dimension."""
    import torch
    from torch.utils._pytree import tree_leaves

    for leaf in tree_leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 1:
            return list(leaf.shape[1:])
    return None


def map_tensors(change: Callable[[Any], Any], batch: Any) -> Any:
    """The batch with every tensor changed."""
    import torch
    from torch.utils._pytree import tree_map_only

    if isinstance(batch, UserDict):  # transformers' BatchEncoding, which pytrees do not know
        changed = copy.copy(batch)
        changed.data = map_tensors(change, batch.data)
        return changed
    return tree_map_only(torch.Tensor, change, batch)


def _has_device() -> bool:
    import torch

    return bool(torch.cuda.is_available() and torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def on_device(batch: Any) -> Any:
    """The batch in device memory where the job uses one, so that ingestion pays no copy."""
    return map_tensors(lambda t: t.cuda(), batch) if _has_device() else batch


def private(batch: Any) -> Any:
    """The batch in memory of this process alone, where it lies in host memory."""
    return map_tensors(lambda t: t if t.is_cuda else t.clone(), batch)


def pinned(batches: list[Any]) -> list[Any] | None:
    """The batches in pinned host memory, from which the job copies them to its GPU.

    None where it has none, or its loader has copied them already: then the job would not.
    """
    if not _has_device() or on_gpu(batches):
        return None
    try:
        return [map_tensors(lambda t: t.pin_memory(), one) for one in batches]
    except RuntimeError:  # sparse tensors, say
        return None


def on_gpu(batches: list[Any]) -> bool:
    """Whether any tensor of the batches lies in a GPU's memory."""
    import torch
    from torch.utils._pytree import tree_leaves

    return any(isinstance(leaf, torch.Tensor) and leaf.is_cuda for leaf in tree_leaves(batches))


def choose(
    loader: Any, size: int, wanted: int, alive: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """A random subset of the loader's own samples, minibatches of `size`, and the files of each.

    Returns a JSON-able dict: indices, files (a list of paths per index), sizes (bytes per path),
    why (None, or the reason why there are no indices). `alive` is called beside long work.
    """
    try:
        return _choose(loader, size, wanted, alive)
    except NotMeasurable as reason:
        return {"indices": [], "files": [], "sizes": {}, "why": str(reason)}


def _choose(loader: Any, size: int, wanted: int, alive: Callable[[], None]) -> dict[str, Any]:
    if loader.batch_sampler is None:
        raise NotMeasurable(
            "the training loader has no batch sampler (batch_size=None: the data set makes its own "
            "minibatches), so the tool cannot choose what is read. Profile it with a batch size, "
            "or as an IterableDataset."
        )
    from torch.utils.data import BatchSampler

    batches = loader.batch_sampler
    plain = type(batches) is BatchSampler  # others may give a share of what their sampler draws
    stream = batches.sampler if plain else itertools.chain.from_iterable(batches)
    most = MOST_DRAWN if (epoch := available(loader)) is None else max(epoch, wanted)
    try:
        drawn = list(dict.fromkeys(int(i) for i in itertools.islice(stream, most)))
    except (TypeError, ValueError):
        raise NotMeasurable(
            f"the {type(batches.sampler if plain else batches).__name__} draws what are no "
            "numbers, so the tool cannot choose what is read"
        ) from None
    count = len(drawn) if wanted >= 0.8 * len(drawn) else wanted
    if len(drawn) < 2 * size:
        raise NotMeasurable(
            f"the data set has {len(drawn)} samples, fewer than two minibatches of {size}"
        )
    indices = drawn[: count // size * size]
    files = _files(loader, indices, alive)
    sizes = {path: os.path.getsize(path) for paths in files for path in paths}
    if any(map(objects.is_object, sizes)):
        if not all(files):
            raise NotMeasurable(objects.NOT_KEPT)
        sizes = objects_alone(sizes)
        files = [[path for path in paths if path in sizes] for paths in files]
    _check_files_are_whole(files, sizes)
    return {"indices": indices, "files": files, "sizes": sizes, "why": None}


def objects_alone(sizes: dict[str, int]) -> dict[str, int]:
    """`sizes` of the objects among the files; small files beside them are left out.

    Raises:
        NotMeasurable: much is read from both.
    """
    found = {path: size for path, size in sizes.items() if objects.is_object(path)}
    beside = sum(sizes.values()) - sum(found.values())
    if beside > BESIDE_OBJECTS * sum(sizes.values()):
        raise NotMeasurable(
            f"the samples are read from objects of a network and from files "
            f"({sum(found.values()) / 1e6:.3g} and {beside / 1e6:.3g} MB), and the tool measures "
            "the storage of one kind. Profile with both in one place"
        )
    return found


def _files(loader: Any, indices: list[int], alive: Callable[[], None]) -> list[list[str]]:
    """Files each sample is read from: the data set's list where it proves true, else by loading."""
    claimed = [_claimed_path(loader.dataset, index) for index in indices]
    step = max(1, len(indices) // PROBED_SAMPLES)
    probed = list(range(0, len(indices), step))
    others = [n for n in range(len(indices)) if n % step]
    before = objects.received_bytes()
    opened = dict(zip(probed, _loaded(loader, [indices[n] for n in probed], 1), strict=True))
    if all(opened[n] == [claimed[n]] for n in probed):  # and no mask or caption beside it
        return [[str(path)] for path in claimed]
    loaded = _loaded(loader, [indices[n] for n in others], loader.num_workers)
    for n, paths in zip(others, loaded, strict=True):
        opened[n] = paths
        alive()
    files = [opened[n] for n in range(len(indices))]
    if not any(files):
        if (received := objects.received_bytes() - before) >= FROM_NETWORK * len(indices):
            raise NotMeasurable(
                f"loading a sample opens no file, and {received / 1e6:.3g} MB came over the "
                f"network while {len(indices)} were loaded: of clients the tool knows fsspec, "
                "whole objects by open() or cat_file() while the disk of TMPDIR has room for them, "
                "and can put what is read otherwise neither into memory nor out of it, so it "
                "cannot tell fetch from prep. Read it that way; `dsanalyzer watch` tells how long "
                "the job waits for both; or profile a part of the data copied to a disk"
            )
        raise NotMeasurable(
            "loading a sample opens no file (data in memory, or one archive opened beforehand), so "
            "there is no fetch to measure that the tool could make cold"
        )
    return files


def _check_files_are_whole(files: list[list[str]], sizes: dict[str, int]) -> None:
    """The page cache is filled and emptied by whole files: right where samples are whole files."""
    opened = Counter(path for paths in files for path in paths)
    if sum(sizes[path] * times for path, times in opened.items()) <= MOST_REPEATED * sum(
        sizes.values()
    ):
        return
    shard = max(opened, key=lambda path: opened[path])
    raise NotMeasurable(
        f"the samples are parts of larger files ({opened[shard]} of {len(files)} lie in "
        f"{objects.name_of(shard)}), and the tool puts whole files into memory and out of it, so "
        "it cannot show what reading parts of them costs. Profile the same data as single files "
        "(for a packed data set: the folder it was packed from)"
    )


def _opened_by(dataset: Any, index: int) -> list[str]:
    with opens.recording() as paths:
        dataset[index]
    return _files_of(paths)


def _files_of(paths: list[str]) -> list[str]:
    return list(dict.fromkeys(path for path in paths if os.path.isfile(path)))


class _Recording:
    """How a worker begins: as the job's does, and then records what samples open."""

    def __init__(self, begin: Callable[[int], None] | None) -> None:
        self._begin = begin

    def __call__(self, worker: int) -> None:
        if self._begin is not None:
            self._begin(worker)
        self._recording = opens.recording()
        self._recording.__enter__()


def _opened_since(_sample: Any) -> list[str]:
    """In the place of the sample that this worker has loaded, the files it opened for it."""
    return _files_of(opens.taken())


def _loaded(loader: Any, indices: list[int], workers: int) -> Iterator[list[str]]:
    """The files of each sample, seen where the job loads it.

    What a data set opens at its first sample (an archive, a client) may be of no use in workers
    that are forked later; so where the loader has torch's workers, samples are loaded in such.
    """
    import torch
    from torch.utils.data import dataloader

    theirs = getattr(type(loader), "_get_iterator", None)
    if not indices:
        return iter(())
    if theirs is not dataloader.DataLoader._get_iterator or not loader.num_workers:
        return (_opened_by(loader.dataset, index) for index in indices)
    twin = dataloader.DataLoader(
        loader.dataset,
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        collate_fn=_opened_since,
        worker_init_fn=_Recording(loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),  # else it would draw from the job's
    )
    # Not through iter(), which the hooks observe.
    return dataloader._MultiProcessingDataLoaderIter(twin)


def check_same_files(loader: Any, indices: list[int], files: list[list[str]]) -> None:
    """The second run must read what the first did.

    Raises:
        NotMeasurable: the data set lists other files now, as after an unseeded random_split.
    """
    for index, paths in zip(indices, files, strict=False):
        claimed = _claimed_path(loader.dataset, index)
        if claimed is not None and claimed not in paths:
            raise NotMeasurable(
                f"sample {index} was {paths[0]} in the first run and is {claimed} in the second. "
                "Seed what draws the samples (torch.manual_seed before random_split)."
            )


def _claimed_path(dataset: Any, index: int) -> str | None:
    """Path the data set says sample `index` comes from (torchvision's `samples`, Subset)."""
    while hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        index, dataset = int(dataset.indices[index]), dataset.dataset
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list) or not 0 <= index < len(samples):
        return None
    entry = samples[index]
    path = entry[0] if isinstance(entry, tuple) and entry else entry
    if isinstance(path, str) and "://" in path:
        return None
    return os.path.abspath(path) if isinstance(path, str | os.PathLike) else None
