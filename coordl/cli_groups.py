"""What `coordl status` and `coordl clear` say and do about groups of jobs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from coordl import _native
from coordl.fetch.budget import format_bytes
from coordl.staging.jobs import Shared, members_by_job


def print_groups(console: Console, groups: list[dict[str, Any]]) -> None:
    """A table for each group: a line for each job, its worker processes together."""
    for group in groups:
        console.print(f"Group {group['name']}", soft_wrap=True)
        if not group["readable"]:
            console.print("  cannot be read: another version's, or damaged")
            continue
        console.print(
            f"  {format_bytes(group['file_bytes'])} of staging, {group['published']:,} of "
            f"{group['slots']:,} slots filled; {group['saved_share']:.0%} of fetch and prep saved"
        )
        console.print(_jobs_table(group))
        if _apart(group):
            console.print("  Jobs that are further apart than the slots hold share nothing.")


def _apart(group: dict[str, Any]) -> bool:
    at = [
        member["epoch"] * group["epoch_samples"] + member["sample"]
        for member in group["members"]
        if member["passes"] > 0
    ]
    return bool(at) and max(at) - min(at) > group["slots"] * group["run_samples"]


def _jobs_table(group: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("  job")
    for heading in ("workers", "epoch", "sample", "prepared", "alone", "staged"):
        table.add_column(heading, justify="right")
    for members in members_by_job(group["members"]):
        # The furthest: workers that wait for one another are a few samples apart.
        active = [(each["epoch"], each["sample"]) for each in members if each["passes"] > 0]
        at = [f"{number:,}" for number in max(active)] if active else ["", "idle"]
        its = Shared.of(members)
        workers = str(len(members) - 1) if len(members) > 1 else ""
        counts = (f"{count:,}" for count in (its.prepared, its.alone, its.staged))
        table.add_row(f"  pid {members[0]['pid']}", workers, *at, *counts)
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
