"""`coordl rates`: how fast native prep is here, as JSON for programs that do not import coordl."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class PixelType(StrEnum):
    """Type of the prepared pixels."""

    float32 = "float32"
    uint8 = "uint8"


class ItemForm(StrEnum):
    """Form of the items in memory."""

    original = "original"
    indexed = "indexed"
    packed = "packed"


def rates(
    files: Annotated[Path, typer.Option("--files", help="text file, one picture's path a line")],
    crop: Annotated[str, typer.Option(help="pixels, HEIGHTxWIDTH")] = "224x224",
    threads: Annotated[
        int | None, typer.Option(min=1, help="default: the cores one may use")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="of measuring")] = 3.0,
    dtype: Annotated[PixelType, typer.Option(help="of the pixels")] = PixelType.float32,
    form: Annotated[
        ItemForm, typer.Option(help="of the items in memory, as a loader's cache holds them")
    ] = ItemForm.original,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file; standard output if left out")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="overwrite the output")] = False,
) -> None:
    """Measure native prep: samples/s of crop, flip and normalise on pictures held in memory."""
    from coordl.errors import CoordlError
    from coordl.rates import measure_prep_rate

    if output is not None and output.exists() and not force:
        raise _refuse(f"{output} exists; --force overwrites it.")
    height, _, width = crop.lower().partition("x")
    if not (height.isdigit() and (width or height).isdigit()):
        raise _refuse(f"--crop {crop} is not HEIGHTxWIDTH, as 224x224.")
    try:
        lines = os.fsdecode(files.read_bytes()).split("\n")
    except OSError as error:
        raise _refuse(f"cannot read {files}: {error.strerror}.") from None
    try:
        rate = measure_prep_rate(
            [line for line in lines if line.strip()],
            (int(height), int(width or height)),
            threads=threads or len(os.sched_getaffinity(0)),
            seconds=seconds,
            dtype=dtype.value,  # type: ignore[arg-type]
            form=form.value,  # type: ignore[arg-type]
        )
    except (CoordlError, ValueError) as error:
        raise _refuse(str(error)) from None
    text = json.dumps(rate.as_dict(), indent=2)
    if output is None:
        print(text)
        return
    output.write_text(text + "\n")
    print(f"Wrote {output}", file=sys.stderr)


def _refuse(message: str) -> typer.Exit:
    print(f"coordl: {message}", file=sys.stderr)
    return typer.Exit(2)
