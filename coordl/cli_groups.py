"""What `coordl status` and `coordl clear` say and do about groups of jobs."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from coordl import _native
from coordl.fetch.budget import format_bytes


def group_table(groups: list[dict[str, Any]]) -> Table:
    """A line for each group, and below it one for each member."""
    table = Table(box=None, pad_edge=False)
    table.add_column("group", overflow="fold")
    for heading in ("staging", "slots", "epoch", "sample", "prepared", "alone", "staged"):
        table.add_column(heading, justify="right")
    for group in groups:
        if not group["readable"]:
            table.add_row(group["name"], "cannot be read", *[""] * 6)
            continue
        slots = f"{group['published']} of {group['slots']}"
        saved = f"saved {group['saved_share']:.0%}"
        table.add_row(group["name"], format_bytes(group["file_bytes"]), slots, *[""] * 4, saved)
        for member in group["members"]:
            active = member["passes"] > 0
            at = (f"{member['epoch']:,}", f"{member['sample']:,}") if active else ("", "idle")
            counts = (f"{member[name]:,}" for name in ("prepared", "alone", "staged"))
            table.add_row(f"  pid {member['pid']}", "", "", *at, *counts)
    return table


def clear_groups(name: str | None, force: bool) -> tuple[list[str], list[str]]:
    """Removes the group of that name, or all. Returns (cleared, refusals).

    Of a name that is no group's nothing is said: it may be a cache's.
    """
    cleared = [each for each in _native.reap_rings() if name in (None, each)]
    refusals = []
    for ring in _native.list_rings():
        if name not in (None, ring["name"]):
            continue
        try:
            _native.clear_ring(ring["name"], force)
            cleared.append(ring["name"])
        except OSError as error:
            refusals.append(str(error.strerror))
    return cleared, refusals
