"""What commands that take long share: a bar, errors in one sentence, and what Ctrl-C leaves."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from coordl.packing import Tell


def shown(path: str | os.PathLike[str]) -> str:
    """A path for reading: bytes that are no text show as replacement characters."""
    return os.fsencode(path).decode(errors="replace")


@contextmanager
def refusing(after_stop: str, made: Path | None = None) -> Iterator[None]:
    """Errors as one sentence and exit code 2; Ctrl-C as 130, saying what is left: nothing while the
    folder `made` is not there."""
    from coordl.errors import CoordlError, ItemError

    def left() -> str:
        return after_stop if made is None or made.exists() else "Nothing was written."

    try:
        yield
        return
    except KeyboardInterrupt:
        print(f"coordl: stopped. {left()}", file=sys.stderr)
        raise typer.Exit(130) from None
    except ItemError as error:
        said = f"{error} {left()}"
    except (CoordlError, ValueError) as error:
        said = str(error)
    except OSError as error:
        where = f"{shown(error.filename)}: " if error.filename else ""
        said = f"{where}{error.strerror}." if error.strerror else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"{said} Make room. {left()}"
    print(f"coordl: {shown(said)}", file=sys.stderr)
    raise typer.Exit(2)


@contextmanager
def progress(what: str, total: int) -> Iterator[Tell]:
    """A bar on stderr where that is a terminal, one line at the end where it is not."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:
        task = bars.add_task(what, total=total)
        yield lambda items, size: bars.advance(task, size)
