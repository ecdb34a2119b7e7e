"""`coordl token`, and what `coordl status --cluster` shows: the servers that share a data set."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from coordl.errors import PeerError
from coordl.fetch.budget import format_bytes
from coordl.peers.address import shared_arenas
from coordl.peers.secret import make_token, token_file

_RATE_S = 1.0  # what the rates are measured over
_FIGURES = (
    "budget_bytes",
    "used_bytes",
    "items",
    "served_items",
    "served_bytes",
    "taken_items",
    "taken_bytes",
    "refused",
    "requests",
)


def token(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="~/.config/coordl/token by default")
    ] = None,
) -> None:
    """Make the secret by which the servers of a job know each other; copy it to each of them.

    A file that only you can read. Never overwritten: remove it to make another. In place of the
    file a launcher may hand out the secret in the environment, as COORDL_TOKEN.
    """
    path = output or token_file()
    try:
        make_token(path)
    except FileExistsError:
        print(f"coordl: {path} exists already. Copy it, or remove it first.", file=sys.stderr)
        raise typer.Exit(2) from None
    print(path)


def cluster() -> list[dict[str, Any]]:
    """What the servers of each data set shared on this node say of themselves, and their rates.

    Raises:
        PeerError: pyarrow or the token is missing.
    """
    try:
        from coordl.peers.client import PeerClient
    except ImportError:
        raise PeerError("pyarrow is missing: pip install 'data-stall-toolkit[servers]'") from None
    from coordl.peers.node import running
    from coordl.peers.secret import Secrets

    secrets = Secrets.from_environment()
    clients: list[tuple[Any, dict[str, Any]]] = []
    for name in shared_arenas():
        record = running(name)
        if record is None:
            continue
        own = PeerClient(str(record["address"]), name, secrets)
        told = _asked(own)
        own.drop()
        for address in told.get("members") or [own.address]:
            client = PeerClient(address, name, secrets)
            clients.append((client, _asked(client)))
    time.sleep(_RATE_S if clients else 0)
    found = [_described(client, before, _asked(client)) for client, before in clients]
    for client, _ in clients:
        client.drop()
    return found


def _asked(client: Any) -> dict[str, Any]:
    try:
        return dict(client.stats(), at=time.monotonic())
    except (OSError, ValueError, PeerError) as error:
        said = str(error).removeprefix(client.address).lstrip(": ")
        return {"error": said, "state": "refused" if isinstance(error, PeerError) else "lost"}


def _described(client: Any, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"arena": client.arena, "address": client.address}
    if "error" in now or "error" in before:
        failed = now if "error" in now else before
        return {**told, "error": failed["error"], "state": failed["state"]}
    told |= {name: int(now.get(name, 0)) for name in _FIGURES}
    passed = max(now["at"] - before["at"], 1e-9)
    told["served_rate"] = (told["served_bytes"] - int(before.get("served_bytes", 0))) / passed
    return told


def cluster_table(servers: list[dict[str, Any]]) -> Table:
    """By data set: each server's share of the items, what it holds, served and took."""
    table = Table(box=None, pad_edge=False)
    table.add_column("server", overflow="fold")
    for heading in ("share", "held", "items", "served", "now", "taken"):
        table.add_column(heading, justify="right")
    for name in sorted({server["arena"] for server in servers}):
        table.add_row(name)
        of = [server for server in servers if server["arena"] == name]
        budget = sum(server.get("budget_bytes", 0) for server in of) or 1
        for server in of:
            if "error" in server:
                table.add_row(f"  {server['address']}", server["state"], "", "", "", "", "")
                continue
            table.add_row(
                f"  {server['address']}",
                f"{100 * server['budget_bytes'] / budget:.0f} %",
                format_bytes(server["used_bytes"]),
                f"{server['items']:,}",
                format_bytes(server["served_bytes"]),
                f"{format_bytes(int(server['served_rate']))}/s",
                format_bytes(server["taken_bytes"]),
            )
    return table
