"""`coordl warm`: fill a cache before training starts."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordl.cli_long import progress, refusing, shown

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
        str,
        typer.Argument(
            metavar="DIR",
            help="image folder DIR/CLASS/*.jpg, or its URL (s3://...); packed data set, tars",
        ),
    ],
    ssd: Annotated[
        Path | None, typer.Option(help="directory on a local disk, where the cache stays")
    ] = None,
    ssd_budget: Annotated[
        str | None, typer.Option(help="what it may hold: 200GiB, or % of DIR  [default: 100%]")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(help="what memory may hold, until coordl clear: 20GiB, or % of DIR"),
    ] = None,
    form: Annotated[
        CacheForm,
        typer.Option(metavar="FORM", help="how JPEGs are held: auto, original, indexed, packed"),
    ] = CacheForm.auto,
    admission: Annotated[
        Admission, typer.Option(help="which items, where not all fit: as they come, or by a seed")
    ] = Admission.first,
    seed: Annotated[int, typer.Option(help="of --admission random")] = 0,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="threads")] = 16,
) -> None:
    """Fill a cache ahead: what coordl.DataLoader would read in its first epoch.

    Name --cache, --ssd or both; memory is filled first. A loader finds it by the same cache=, or
    cache=MinIOCache(..., ssd=...). It stays: in memory until `coordl clear` or the machine's end.
    Stopped with Ctrl-C, what is in it stays too, whole; the same command goes on.
    """
    with refusing("What was admitted by now stays; the same command goes on."):
        from coordl.fetch.cache import MinIOCache

        if cache is None and ssd is None:
            raise ValueError(
                "where shall the cache be? Name what memory may hold (--cache 65%), a directory on "
                "a local disk (--ssd DIR), or both."
            )
        with MinIOCache(
            0 if cache is None else cache,
            persist=cache is not None,
            form=form.value,
            admission=admission.value,
            admission_seed=seed,
            ssd=ssd,
            ssd_budget=ssd_budget,
        ) as into:
            _report(_fill(into, _dataset(directory), workers), into)


def _dataset(directory: str) -> Any:
    from coordl.fetch.place import is_url
    from coordl.fetch.shards import MANIFEST
    from coordl.sources.image_folder import ImageFolder, PackedFolder
    from coordl.sources.tar_shards import KEY, TarShards

    if is_url(directory):  # credentials and endpoints: fsspec's own configuration and variables
        return ImageFolder(directory)
    if directory.endswith(".tar"):
        return TarShards(directory, target=KEY)
    kind: Any = PackedFolder if (Path(directory) / MANIFEST).exists() else ImageFolder
    return kind(directory)


def _fill(cache: MinIOCache, dataset: Any, workers: int) -> Warmed:
    from coordl.fetch.warm import Warming

    warming = Warming(cache, dataset)
    with progress(f"Warming {len(warming.rows):,} items", warming.total_bytes) as tell:
        return warming.run(workers, tell)


def _report(done: Warmed, cache: MinIOCache) -> None:
    from coordl.fetch.budget import format_bytes

    stats = cache.stats()
    tiers = {f"cache {cache.name}": ""} if cache.persist else {}
    if cache.ssd is not None:
        tiers[shown(cache.ssd)] = "ssd_"
    for place, prefix in tiers.items():
        used, budget = stats[f"{prefix}used_bytes"], stats[f"{prefix}budget_bytes"]
        print(
            f"{place} holds {stats[f'{prefix}items']:,} items, "
            f"{format_bytes(used)} of {format_bytes(budget)}"
        )
    print(
        f"{done.held:,} of {done.items:,} items of the data set are held; "
        f"{format_bytes(done.read_bytes)} were read"
    )
    if done.failed:
        first = shown(str(done.failed[0]))
        print(f"coordl: {len(done.failed):,} could not be read, first {first}", file=sys.stderr)
        raise typer.Exit(2)
