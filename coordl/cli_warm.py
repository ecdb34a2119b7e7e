"""`coordl warm`: fill a cache before training starts."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordl.cli_pack import _progress, _refusing, shown

if TYPE_CHECKING:
    from coordl.fetch.cache import MinIOCache
    from coordl.fetch.warm import Warmed


class CacheForm(StrEnum):
    """How items are held."""

    auto = "auto"
    original = "original"
    indexed = "indexed"
    packed = "packed"


class Admission(StrEnum):
    """Which items are held."""

    first = "first"
    random = "random"


def warm(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="image folder DIR/CLASS/*.jpg, or packed data set")
    ],
    ssd: Annotated[
        Path | None, typer.Option(help="directory on a local disk, where the cache stays")
    ] = None,
    ssd_budget: Annotated[str, typer.Option(help="what it may hold: 200GiB, or % of DIR")] = "100%",
    cache: Annotated[
        str | None, typer.Option(help="what memory may hold: 20GiB, or % of DIR")
    ] = None,
    form: Annotated[CacheForm, typer.Option(help="how JPEGs are held")] = CacheForm.auto,
    admission: Annotated[
        Admission, typer.Option(help="which items, where not all fit: as they come, or by a seed")
    ] = Admission.first,
    seed: Annotated[int, typer.Option(help="of --admission random")] = 0,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="threads")] = 16,
) -> None:
    """Fill a cache ahead: what coordl.DataLoader would read in its first epoch.

    A cache in memory ends with its last process, so this fills one on a disk; a loader finds it
    by cache=MinIOCache(..., ssd=...). Stopped with Ctrl-C, what is in it stays, whole; the same
    command goes on.
    """
    from coordl.fetch.cache import MinIOCache

    with _refusing("What is in the cache stays; the same command goes on."):
        if cache is not None or ssd is None:
            raise ValueError(
                "a cache in memory ends with the last process that uses it, here with this "
                "command. Name a disk with --ssd DIR (and no --cache), or call "
                "MinIOCache.warm(dataset) in the training script."
            )
        with MinIOCache(
            0,
            form=form.value,
            admission=admission.value,
            admission_seed=seed,
            ssd=ssd,
            ssd_budget=ssd_budget,
        ) as into:
            _report(_fill(into, _dataset(directory), workers), into)


def _dataset(directory: Path) -> Any:
    from coordl.datasets import ImageFolder, PackedFolder
    from coordl.fetch.shards import MANIFEST

    kind: Any = PackedFolder if (directory / MANIFEST).exists() else ImageFolder
    return kind(directory)


def _fill(cache: MinIOCache, dataset: Any, workers: int) -> Warmed:
    from coordl.fetch.warm import Warming

    warming = Warming(cache, dataset)
    with _progress(f"Warming {len(warming.rows):,} items", warming.total_bytes) as tell:
        return warming.run(workers, tell)


def _report(done: Warmed, cache: MinIOCache) -> None:
    from coordl.fetch.budget import format_bytes

    stats = cache.stats()
    print(
        f"{shown(cache.ssd or '')} holds {done.held:,} of {done.items:,} items, "
        f"{format_bytes(stats['ssd_used_bytes'])} of {format_bytes(stats['ssd_budget_bytes'])}; "
        f"{format_bytes(done.read_bytes)} were read"
    )
    if done.failed:
        first = shown(str(done.failed[0]))
        print(f"coordl: {len(done.failed):,} could not be read, first {first}", file=sys.stderr)
        raise typer.Exit(2)
