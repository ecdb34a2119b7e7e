"""`coordl pack` and `coordl unpack`: an image folder as shards of packed items, and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordl.cli_long import progress, refusing, shown

if TYPE_CHECKING:
    from coordl.packing import Outcome


class ItemForm(StrEnum):
    """How items are stored."""

    packed = "packed"
    indexed = "indexed"


JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="threads; default: the cores one may use")
]


def pack(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="image folder: SRC/CLASS/*.jpg")],
    out: Annotated[Path, typer.Argument(metavar="DST", help="folder of the packed data set")],
    form: Annotated[
        ItemForm,
        typer.Option(help="packed: fastest, 1.25 to 1.7 times the files; indexed: 1.05 times"),
    ] = ItemForm.packed,
    jobs: JobsOption = None,
    shard_size: Annotated[str, typer.Option(help="most bytes of a shard")] = "256MiB",
    force: Annotated[
        bool, typer.Option("--force", "-f", help="pack anew in place of what DST holds")
    ] = False,
) -> None:
    """Pack an image folder into shards that coordl.PackedFolder reads: same pictures, same pixels.

    A run that was stopped, or killed, goes on where it stopped when it is run again.
    """
    after_stop = f"What is finished stays in {out}; the same command goes on from there."
    with refusing(after_stop, out):
        from coordl.fetch.budget import format_bytes
        from coordl.packing import FEWEST_SHARD_BYTES, Order, list_source
        from coordl.packing import pack as make

        shard_bytes = _size(shard_size)
        if shard_bytes < FEWEST_SHARD_BYTES:
            raise ValueError(f"--shard-size is at least {format_bytes(FEWEST_SHARD_BYTES)}")
        order = Order(list_source(source), form.value, shard_bytes)
        files, total = len(order.source.names), int(order.source.sizes.sum())
        with progress(f"Packing {_count(files, 'file')}", total) as tell:
            outcome = make(order, out, jobs=jobs or _cores(), force=force, tell=tell)
    _report(outcome, out)


def _report(outcome: Outcome, out: Path) -> None:
    from coordl.fetch.budget import format_bytes

    manifest, kept = outcome.data.manifest, outcome.stored_as_they_are()
    sizes = f"{format_bytes(manifest['source_bytes'])} in files"
    if outcome.already:
        files = _count(manifest["items"], "file")
        print(f"{shown(out)} is packed already; its source is the same: {files}. Unchanged.")
        return
    if outcome.resumed_items:
        print(f"Went on after the {_count(outcome.resumed_items, 'file')} packed before.")
    if kept:
        print(f"Stored as they are: {len(kept):,} of {manifest['items']:,}, e.g. {_first(kept)}")
    if unknown := outcome.no_pictures:
        print(
            f"coordl: {len(unknown):,} of them are no pictures, and an error to whoever loads "
            f"them: {_first(unknown)}",
            file=sys.stderr,
        )
    pictures, classes = _count(manifest["items"], "picture"), _count(manifest["classes"], "class")
    print(
        f"Wrote {shown(out)}: {pictures} of {classes}, "
        f"{format_bytes(manifest['bytes'])} in {_count(manifest['shards'], 'shard')} ({sizes})"
    )


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")


def unpack(
    packed: Annotated[Path, typer.Argument(metavar="SRC", help="folder `coordl pack` made")],
    out: Annotated[Path, typer.Argument(metavar="DST", help="folder for the class folders")],
    jobs: JobsOption = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="into a folder that holds something")
    ] = False,
) -> None:
    """Give the class folders of a packed data set back: JPEGs of identical coefficients.

    What was stored as it is comes back bit for bit.
    """
    with refusing(f"{out} is incomplete; run it again with --force.", out):
        from coordl.fetch.budget import format_bytes
        from coordl.fetch.shards import open_packed
        from coordl.unpacking import unpack as make

        data = open_packed(packed)
        items = len(data.index)
        with progress(
            f"Unpacking {_count(items, 'file')}", int(data.index.source_sizes.sum())
        ) as tell:
            written = make(data, out, jobs=jobs or _cores(), force=force, tell=tell)
    print(f"Wrote {shown(out)}: {_count(items, 'file')}, {format_bytes(written)}")


def _size(text: str) -> int:
    from coordl.fetch.budget import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(f"--shard-size {error}") from None


def _count(number: int, noun: str) -> str:
    """2400, "picture" -> "2,400 pictures"."""
    plural = {"class": "classes"}.get(noun, f"{noun}s")
    return f"{number:,} {noun if number == 1 else plural}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))
