"""A group as its jobs and whoever starts them name it, and what it is doing now."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coordl import _native
from coordl.fetch.budget import parse_budget

# Name a group, and the memory whoever begins it sets aside, for a whole script.
VARIABLE = "COORDL_GROUP"
STAGING_VARIABLE = "COORDL_STAGING"
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,80}")  # 128 with what is added for ranks and data sets
_DEFAULT_BYTES = 2 << 30
_DEFAULT_SHARE = 4  # of what memory allows, at most one part in so many


@dataclass(frozen=True)
class JobGroup:
    """A group of jobs on this server: `group=` of a loader, or around what starts the jobs.

    As a context manager it names the group for the processes that begin within, as COORDL_GROUP
    does in a shell; loaders of this process that name none join it too when they are iterated. The
    environment is the process's: not in several threads at once.

    Args:
        name: the group's.
        staging: as the loader's; a loader's own counts before it.
    """

    name: str
    staging: int | str | None = None
    _before: list[dict[str, str | None]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                f"bad group name {self.name!r}: 1 to 80 of A-Z a-z 0-9 . _ -, no leading dot"
            )
        if self.staging is not None:
            staging_bytes(self.staging)  # a wrong one is told now

    def environment(self) -> dict[str, str]:
        """What to add to a job's environment, where another process starts it."""
        added = {VARIABLE: self.name}
        return added if self.staging is None else {**added, STAGING_VARIABLE: str(self.staging)}

    def __enter__(self) -> JobGroup:
        added = self.environment()
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        self._before.append(before)
        return self

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.pop().items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def status(self) -> list[dict[str, Any]]:
        """What `coordl status --format json` tells of it: slots, members and what they made and
        saved. One for each data set and rank that jobs share; none when nobody is in it."""
        # As coordl/delivery/joining.py makes a ring's name: the rank, then what the environment
        # has apart.
        its = re.compile(re.escape(self.name) + r"(\.rank-\d+-of-\d+)?(\.[0-9a-f]{12})?")
        return [group for group in live_groups() if its.fullmatch(group["name"])]


def staging_bytes(staging: int | str | None) -> int:
    """Memory for slots: what `staging=` or the environment says, or by default a part of what there
    is.

    Raises:
        ValueError, TypeError: it is no size.
    """
    said = "staging="
    if staging is None:
        staging, said = os.environ.get(STAGING_VARIABLE) or None, f"{STAGING_VARIABLE}="
    if staging is None:
        allowed = _native.memory_limits()["allowed_bytes"]
        return min(_DEFAULT_BYTES, (allowed or _DEFAULT_BYTES) // _DEFAULT_SHARE)
    if isinstance(staging, str) and "%" in staging:
        raise ValueError(f"{said}{staging!r}: give bytes, or text as '2GiB'")
    try:
        return parse_budget(staging)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("cache=", said)) from None


def live_groups() -> list[dict[str, Any]]:
    """Groups of this user that live: slots, what they agree on, members, savings."""
    return [_described(ring) for ring in _native.list_rings()]


def _described(ring: dict[str, Any]) -> dict[str, Any]:
    members: Iterable[dict[str, Any]] = ring["members"]
    made = sum(member["prepared"] + member["alone"] for member in members)
    staged = sum(member["staged"] for member in members)
    record = ring.pop("record")
    try:
        agreed = json.loads(record) if record else {}
    except ValueError:
        agreed = {}
    saved = staged / (made + staged) if made + staged else 0.0
    return {**ring, "agreed": agreed, "saved_share": round(saved, 4)}
