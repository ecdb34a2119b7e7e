"""`coordl status | clear | verify | doctor | warm | token | rates | pack | unpack | run`: caches,
packed data, groups of jobs, servers.

Results go to stdout, everything else to stderr. Exit 0 fine, 1 faults found, 2 could not do it.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from coordl import _native
from coordl.cli_cluster import cluster as cluster_now
from coordl.cli_cluster import cluster_table, token
from coordl.cli_groups import clear_groups, print_groups
from coordl.cli_pack import pack, unpack
from coordl.cli_rates import rates
from coordl.cli_run import run
from coordl.cli_warm import warm
from coordl.doctor import examine
from coordl.errors import PeerError
from coordl.fetch.budget import format_bytes
from coordl.fetch.cache import FORMS
from coordl.peers.address import reap_records
from coordl.staging.job_group import live_groups


class Commands(TyperGroup):
    """The commands, whose complaints about values are free of the validating library's prefix, and
    whose help shows flags without a type: `--force <bool>` reads as if it took a value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _plain(command.get_params(ctx))
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


def _plain(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


app = typer.Typer(
    name="coordl",
    cls=Commands,
    help="Caches and prep that coordl's loaders share on this machine, and packed data sets.",
    epilog="Examples:\n\ncoordl status\n\ncoordl clear --force\n\ncoordl verify\n\n"
    "coordl doctor\n\ncoordl pack pictures/train packed/train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"coordl {metadata.version('data-stall-toolkit')}")
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


class Format(StrEnum):
    """How a result is printed."""

    text = "text"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text, or json for programs")]
NameArgument = Annotated[
    str | None, typer.Argument(help="which cache; all of this user's if left out")
]
DiskOption = Annotated[
    Path | None,
    typer.Option(
        "--ssd",
        help="the caches kept in this directory of a disk, instead of those in memory",
        file_okay=False,
        exists=True,
    ),
]


@app.command(
    epilog="Examples:\n\ncoordl status\n\ncoordl status --cluster\n\n"
    "coordl status --ssd /local/cache\n\n"
    "coordl status --format json | jq '.arenas[0].items'"
)
def status(
    ssd: DiskOption = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="the servers that share caches with this one")
    ] = False,
    format: FormatOption = Format.text,
) -> None:
    """List the caches and groups of this user; remove what killed jobs left.

    Of a group's jobs: the sample they are at, and how many they prepared for all, for themselves
    alone, and got from the others. "workers": their processes that are members too.

    "kept": it stays when its last user ends (persist=True), until coordl clear.
    --cluster asks the servers of this node's running jobs; it needs their token.
    """
    if cluster:
        _print_cluster(format)
        return
    kept_in = _kept_in(ssd)
    reaped = _native.reap_arenas() if kept_in is None else []
    reaped += _native.reap_rings() if kept_in is None else []
    reap_records()
    arenas = _native.list_arenas(kept_in)
    groups = live_groups() if kept_in is None else []
    directory = kept_in or _native.arena_directory()
    if format is Format.json:
        _print_json({"directory": directory, "arenas": arenas, "groups": groups, "reaped": reaped})
        return
    console = _console()
    if arenas:
        console.print(_arena_table(arenas))
    else:
        console.print(f"No caches of this user in {directory}.")
    print_groups(console, groups)
    for name in reaped:
        console.print(f"Reaped {name}: its last user was killed.")


@app.command(
    epilog="Examples:\n\ncoordl clear 3f9c0a61e2d47b5086c1f93a\n\n"
    "coordl clear --force   (every one in memory)\n\ncoordl clear --ssd /local/cache"
)
def clear(
    name: NameArgument = None,
    ssd: DiskOption = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="also those in use; their jobs keep theirs")
    ] = False,
) -> None:
    """Remove caches and groups. Those in use are refused unless --force."""
    kept_in = _kept_in(ssd)
    cleared = _native.reap_arenas() if kept_in is None else []
    groups, refusals = clear_groups(name, force) if kept_in is None else ([], [])
    names = _names(name, kept_in) if name is None or not (groups or refusals) else []
    refused = bool(refusals)
    for refusal in refusals:
        print(f"coordl: {refusal}", file=sys.stderr)
    cleared += groups
    for each in names:
        if each in cleared:
            continue
        try:
            _native.clear_arena(each, force, kept_in)
            cleared.append(each)
        except OSError as error:
            refused = True
            there = [group["name"] for group in live_groups()] if kept_in is None else []
            print(f"coordl: {_told(error, kept_in, there)}", file=sys.stderr)
    for each in cleared:
        print(f"Cleared {each}.")
    if refused:
        raise typer.Exit(2)
    if not cleared:
        print("Nothing to clear.")


@app.command(
    epilog="Examples:\n\ncoordl verify\n\ncoordl verify 3f9c0a61e2d47b5086c1f93a\n\n"
    "coordl verify --ssd /local/cache\n\ncoordl verify --format json | jq '.arenas[].faults'"
)
def verify(
    name: NameArgument = None, ssd: DiskOption = None, format: FormatOption = Format.text
) -> None:
    """Re-check every item of the caches against its checksum. Their users notice nothing.

    Exit status 1 when there are faults, each on a line: an item that was changed in memory, or an
    index that contradicts it. Clear that cache.
    """
    kept_in = _kept_in(ssd)
    names = _names(name, kept_in)
    checked = []
    failed = False
    for each in names:
        try:
            items, size, faults = _native.verify_arena(each, kept_in)
        except OSError as error:
            failed = True
            print(f"coordl: {_told(error, kept_in)}", file=sys.stderr)
            continue
        checked.append({"name": each, "items": items, "bytes": size, "faults": faults})
    if format is Format.json:
        _print_json({"arenas": checked})
    elif checked or not failed:
        _print_verified(checked)
    if failed:
        raise typer.Exit(2)
    if any(arena["faults"] for arena in checked):
        raise typer.Exit(1)


def _print_cluster(format: Format) -> None:
    servers = cluster_now()
    if format is Format.json:
        _print_json({"servers": servers})
    elif servers:
        _console().print(cluster_table(servers))
        for server in servers:
            if "error" in server:
                print(f"{server['address']}: {server['error']}")
    else:
        print("No caches of this node are shared with other servers now.")


def _kept_in(ssd: Path | None) -> str | None:
    return None if ssd is None else str(ssd.absolute())


def _names(name: str | None, kept_in: str | None) -> list[str]:
    if name is not None:
        return [name]
    return [arena["name"] for arena in _native.list_arenas(kept_in)]


def _told(error: OSError, kept_in: str | None, more: Iterable[str] = ()) -> str:
    """What an OSError of an arena says; of an unknown name also which there are, and `more`."""
    if error.errno != errno.ENOENT:
        return str(error.strerror)
    if there := ", ".join([*_names(None, kept_in), *more]):
        return f"{error.strerror}. There are: {there}. Name one of them, or none for all."
    elsewhere = "" if kept_in else " Those on a disk are found with --ssd DIRECTORY."
    return f"{error.strerror}, nor any other.{elsewhere}"


def _print_verified(checked: list[dict[str, Any]]) -> None:
    if not checked:
        print("Nothing to verify.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("cache", overflow="fold")
    for heading in ("items", "bytes", "faults"):
        table.add_column(heading, justify="right")
    for arena in checked:
        items, size = f"{arena['items']:,}", format_bytes(arena["bytes"])
        table.add_row(arena["name"], items, size, str(len(arena["faults"])))
    _console().print(table)
    for arena in checked:
        for fault in arena["faults"]:
            print(f"{arena['name']}: {fault}")


@app.command(epilog="Example:\n\ncoordl doctor")
def doctor(format: FormatOption = Format.text) -> None:
    """Show what limits caches and loaders here, and what to change."""
    findings = examine()
    if format is Format.json:
        _print_json({"findings": [finding.as_dict() for finding in findings]})
        return
    console = _console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(finding.name, finding.value)
    console.print(table)
    for finding in findings:
        if finding.advice or finding.commands:
            console.print(f"• {finding.name}: {finding.advice}", markup=False)
        for command in finding.commands:  # in one line however long: it is there to be copied
            print(f"    {command}")


app.command(
    epilog="Examples:\n\ncoordl warm pictures/train --ssd /local/cache\n\n"
    "coordl warm pictures/train --ssd /local/cache --ssd-budget 200GiB --form packed"
)(warm)
app.command(
    epilog="Examples:\n\ncoordl token\n\nscp ~/.config/coordl/token node2:.config/coordl/token"
)(token)
app.command(epilog="Example:\n\ncoordl rates --files list.txt --crop 224x224 -o rates.json")(rates)


app.command(
    epilog="Examples:\n\ncoordl pack pictures/train packed/train\n\n"
    "coordl pack pictures/train packed/train --form indexed --jobs 8\n\n"
    "In Python:\n\ncoordl.DataLoader(coordl.PackedFolder('packed/train', transform), ...)"
)(pack)
app.command(epilog="Example:\n\ncoordl unpack packed/train pictures-again")(unpack)
app.command(
    epilog="Examples:\n\ncoordl run --jobs 8 -- python train.py\n\n"
    "coordl run --jobs 4 --logs sweep -- python train.py --config {job}.yaml"
)(run)


def _console() -> Console:
    return Console(width=80, highlight=False, soft_wrap=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _arena_table(arenas: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("cache", overflow="fold")
    for heading in ("budget", "used", "", "items", "users"):
        table.add_column(heading, justify="right")
    for arena in arenas:
        users = str(arena["users"]) + (", kept" if arena["persist"] else "")
        if not arena["readable"]:
            table.add_row(arena["name"], "cannot be read", "", "", "", users)
            continue
        budget, used = arena["budget_bytes"], arena["used_bytes"]
        sizes = format_bytes(budget), format_bytes(used), f"{100 * used / budget:.0f} %"
        table.add_row(arena["name"], *sizes, f"{arena['items']:,}", users)
        for form in FORMS:
            if items := arena[f"{form}_items"]:
                held = format_bytes(arena[f"{form}_bytes"])
                table.add_row(f"  {form}", "", held, "", f"{items:,}", "")
    return table


def main() -> None:
    """Entry point of the console script."""
    try:
        app(prog_name="coordl")
    except (OSError, PeerError) as error:
        print(f"coordl: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
