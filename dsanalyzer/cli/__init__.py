"""The dsanalyzer command: one file per subcommand."""

from __future__ import annotations

import typer

from dsanalyzer.cli.compare import compare
from dsanalyzer.cli.profile import profile
from dsanalyzer.cli.report import report
from dsanalyzer.cli.whatif import whatif

app = typer.Typer(
    name="dsanalyzer",
    help="Where each epoch goes: fetch stall, prep stall, GPU. And what would fix it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command(context_settings={"allow_interspersed_args": False})(profile)
app.command()(whatif)
app.command()(report)
app.command()(compare)


def main() -> None:
    """Entry point of the console script."""
    app()
