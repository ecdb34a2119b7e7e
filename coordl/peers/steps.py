"""Named points in what servers do for one another: at each, tests kill and stop whoever is there.

Nothing is done at them otherwise; each costs a call and a comparison, per request and not per item
where native threads prepare.
"""

from __future__ import annotations

from collections.abc import Callable

# Of a process that trains: it says where its node's server is, looks for others, asks for items,
# reads what it did not get, gives what it read for others, starts a killed server again.
OF_RANKS = (
    "publish:begun",
    "publish:set",
    "greet:begun",
    "greet:answered",
    "ask:begun",
    "ask:answered",
    "ask:provided",
    "lost:noted",
    "read:begun",
    "give:begun",
    "give:taken",
    "revive:begun",
)
# Of a server.
OF_SERVERS = (
    "begin:locked",
    "begin:listens",
    "begin:told",
    "hello:asked",
    "serve:asked",
    "serve:found",
    "take:given",
    "take:checked",
    "take:admitted",
    "end:alone",
    "end:shut",
)

hook: Callable[[str], None] | None = None  # of tests


def reached(step: str) -> None:
    if hook is not None:
        hook(step)
