"""dsanalyzer report: a result file as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dsanalyzer.report.load import DocumentError, load_result, load_whatif
from dsanalyzer.report.page import ReportExtraMissing, write_page


def report(
    result: Annotated[Path, typer.Argument(help="result.json of `dsanalyzer profile`")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="page to write; default: the result's name, .html"),
    ] = None,
    whatif: Annotated[
        Path | None, typer.Option("--whatif", help="predictions of `dsanalyzer whatif` to show")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="replace the page if there is one")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="show the page in a browser")] = False,
) -> None:
    """Write one self-contained HTML page of a result: no network, no second file."""
    page = output or result.with_suffix(".html")
    try:
        measured = load_result(result)
        predicted = None if whatif is None else load_whatif(whatif)
        check_target(page, force, read=[result, *([whatif] if whatif else [])])
        write_page(measured, page, predicted)
    except (DocumentError, ReportExtraMissing, FileExistsError, OSError) as error:
        refuse(error)
    typer.echo(page)
    if open_page:
        typer.launch(str(page))


def check_target(page: Path, force: bool, read: list[Path]) -> None:
    """Raises FileExistsError or NotADirectoryError where `page` must not or cannot be written."""
    if any(page.exists() and source.exists() and page.samefile(source) for source in read):
        raise FileExistsError(f"{page}: is read from.\nName another file with -o.")
    if page.is_dir():
        raise FileExistsError(f"{page}: is a folder.\nName a file in it.")
    if page.exists() and not force:
        raise FileExistsError(f"{page}: exists.\nReplace it with --force, or name another file.")
    if not page.parent.is_dir():
        raise NotADirectoryError(f"{page.parent}: no such folder.\nMake it first.")


def refuse(error: Exception) -> NoReturn:
    """Says why nothing was done, and ends with exit code 2."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        text = f"{error.filename or 'output'}: {error.strerror}.\nNothing was written."
    typer.echo(f"dsanalyzer: {text}", err=True)
    raise typer.Exit(2)
