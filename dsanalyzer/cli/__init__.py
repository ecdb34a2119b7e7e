"""The dsanalyzer command: one file per subcommand."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import dsanalyzer
from dsanalyzer.cli.compare import compare
from dsanalyzer.cli.profile import profile
from dsanalyzer.cli.report import report
from dsanalyzer.cli.watch import watch
from dsanalyzer.cli.whatif import whatif


class Commands(TyperGroup):
    """The commands, whose help shows flags without a type: `--force <bool>` reads as if it took a
    value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _plain(command.get_params(ctx))
        return command


def _plain(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


app = typer.Typer(
    name="dsanalyzer",
    cls=Commands,
    help="Where each epoch goes: fetch stall, prep stall, GPU. And what would fix it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"dsanalyzer {dsanalyzer.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the command itself; its help is the app's."""


app.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Examples:\n\ndsanalyzer profile -- python train.py --data /data/imagenet\n\n"
    "dsanalyzer profile --cached 35% --storage hdd -- python train.py\n\n"
    "dsanalyzer profile --gpu-rate 1200 -o v100.json -- python train.py\n\n"
    "dsanalyzer profile --budget 90s -- python train.py\n\n"
    "dsanalyzer profile --data /data/pictures --model resnet18 --batch-size 256 --gpu-rate 3000",
)(profile)
app.command(
    epilog="Examples:\n\ndsanalyzer whatif dsanalyzer.json\n\n"
    "dsanalyzer whatif dsanalyzer.json --cache 80% --cores 8 --storage nvme\n\n"
    "dsanalyzer whatif dsanalyzer.json --loader coordl -o predicted.json\n\n"
    "dsanalyzer whatif dsanalyzer.json --form packed --rates packed.json --cache 100%\n\n"
    "dsanalyzer whatif dsanalyzer.json --jobs 4 --loader coordl\n\n"
    "dsanalyzer whatif dsanalyzer.json --servers 2 --network 10Gbit/s\n\n"
    "dsanalyzer whatif dsanalyzer.json --prices cloud.toml\n\n"
    "A price file:\n\n"
    "per = 'hour' (or month, once); [machine] price = 3.06; [cache] per_GB = 0.004;\n"
    "[cores] each = 0.04; [gpu] each = 2.5; [storage.nvme] price = 0.1;\n"
    "[loader.coordl] price = 0. All parts are optional (docs/predict.md)."
)(whatif)
app.command(
    epilog="Examples:\n\ndsanalyzer report result.json\n\n"
    "dsanalyzer report result.json --whatif whatif.json -o report.html --force"
)(report)
app.command(
    epilog="Examples:\n\ndsanalyzer compare stock.json coordl.json\n\n"
    "dsanalyzer compare stock.json coordl.json --predicted whatif.json\n\n"
    "dsanalyzer compare main.json branch.json --fail-above 5"
)(compare)
app.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Examples:\n\ndsanalyzer watch -- torchrun --nproc-per-node 8 train.py\n\n"
    "dsanalyzer watch --prometheus /var/lib/node_exporter/train.prom -- python train.py",
)(watch)


def main() -> None:
    """Entry point of the console script."""
    app()
