"""dsanalyzer compare: two results side by side, and a prediction held against the second."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dsanalyzer.cli.report import check_target, refuse
from dsanalyzer.report import terminal
from dsanalyzer.report.comparison import Comparison, pick_scenario, prediction_doubts
from dsanalyzer.report.comparison_page import write_comparison_page
from dsanalyzer.report.document import Result, Scenario
from dsanalyzer.report.load import DocumentError, load_result, load_whatif
from dsanalyzer.report.units import NBSP, signed_percent


def compare(
    before: Annotated[Path, typer.Argument(help="result.json of the first profile")],
    after: Annotated[Path, typer.Argument(help="result.json of the second profile")],
    predicted: Annotated[
        Path | None,
        typer.Option("--predicted", help="predictions made from the first, to be held to account"),
    ] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="which of the predictions was carried out")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="write the comparison as a page too")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="replace the page if there is one")
    ] = False,
    fail_above: Annotated[
        float | None,
        typer.Option(
            "--fail-above",
            min=0,
            metavar="PERCENT",
            help="exit 1 when epoch time grew, or the prediction is off, by more than this",
        ),
    ] = None,
) -> None:
    """Show two results side by side; for continuous integration, fail when it got worse.

    Epoch time is compared per sample. Exit code 0 fine, 1 above --fail-above, 2 could not compare.
    """
    try:
        first, second = load_result(before), load_result(after)
        chosen, doubts = None, []
        if predicted is not None:
            whatif = load_whatif(predicted)
            chosen = pick_scenario(whatif, scenario)
            doubts = prediction_doubts(whatif, first, second)
        elif scenario is not None:
            raise ValueError("--scenario names a prediction.\nGive the file with --predicted.")
        if html is not None:
            check_target(html, force, read=[before, after, *([predicted] if predicted else [])])
            write_comparison_page(first, second, chosen, html, doubts)
    except (DocumentError, ValueError, FileExistsError, OSError) as error:
        refuse(error)
    terminal.comparison(first, second, chosen, Console(), doubts)
    if html is not None:
        typer.echo(html)
    if fail_above is not None and (faults := broken_limits(first, second, chosen, fail_above)):
        for fault in faults:
            typer.echo(f"dsanalyzer: {fault}", err=True)
        raise typer.Exit(1)


def broken_limits(
    before: Result, after: Result, predicted: Scenario | None, limit_percent: float
) -> list[str]:
    """What went beyond `limit_percent`, in words; empty where nothing did."""
    pair = Comparison(before, after, predicted)
    limit = f"limit {limit_percent:g}{NBSP}%"
    faults = []
    if pair.epoch_growth * 100 > limit_percent:
        faults.append(f"epoch time per sample: {signed_percent(pair.epoch_growth)} ({limit})")
    error = pair.prediction_error
    if error is not None and abs(error) * 100 > limit_percent:
        faults.append(f"prediction error: {signed_percent(error)} ({limit})")
    return faults
