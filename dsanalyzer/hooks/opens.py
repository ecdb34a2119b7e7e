"""Tells the tool which files the job opens to read, in whichever process that happens.

Python raises the audit event "open" for every open(2) it makes; libraries that read natively can
raise it too, and coordl does. The hook is cheap for everything else: one string comparison.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from dsanalyzer.hooks.wire import Connection
from dsanalyzer.measure import residency

_NOT_DATA = (".py", ".pyc", ".so", ".pth", ".pyd")
_SYSTEM = ("/proc/", "/sys/", "/etc/", "/usr/lib", "/usr/bin", sys.prefix + os.sep)

_NO_READS = os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY

_local = threading.local()
_events: Connection | None = None
_pace: Callable[[str], None] | None = None
_served: frozenset[str] = frozenset()  # data files whose reads the kernel does not count
_recorded: list[str] | None = None  # into what tell() records, whichever thread reads


class recording:
    """Within it, opens of this thread are appended to a list and not sent to the tool.

    So are objects of a network, of any thread: fsspec reads them in one of its own.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __enter__(self) -> list[str]:
        global _recorded
        _recorded = _local.into = self.paths
        return self.paths

    def __exit__(self, *_: object) -> None:
        global _recorded
        _recorded = _local.into = None


def taken() -> list[str]:
    """What has been recorded since it was last taken."""
    recorded = _recorded or []
    paths = list(recorded)
    recorded.clear()
    return paths


class unseen:
    """Within it, opens of this thread are the tool's own."""

    def __enter__(self) -> None:
        self._before = getattr(_local, "busy", False)
        _local.busy = True

    def __exit__(self, *_: object) -> None:
        _local.busy = self._before


def tell(path: str, network_bytes: int) -> None:
    """The job reads the object that `path` stands for, so many bytes of it over the network."""
    recorded = _recorded
    if recorded is not None:
        recorded.append(path)
    elif _events is not None:
        with unseen():
            _events.event({"op": "open", "path": path, "network_bytes": network_bytes})


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event != "open":
        return
    path, _, flags = args
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str) or (isinstance(flags, int) and flags & _NO_READS):
        return
    if path.endswith(_NOT_DATA) or path.startswith(_SYSTEM) or getattr(_local, "busy", False):
        return
    with unseen():  # what the hook itself opens is not the job's
        path = os.path.abspath(path)
        into = getattr(_local, "into", None)
        if into is not None:
            into.append(path)
        elif _events is not None:
            message: dict[str, Any] = {"op": "open", "path": path}
            if path in _served:
                resident, total, method = residency.resident_pages(path)
                if method != "unknown":
                    message["absent_bytes"] = (total - resident) * residency.PAGE_BYTES
            _events.event(message)
            if _pace is not None:
                _pace(path)


def install(config: dict[str, Any]) -> None:
    global _events, _pace, _served
    if config.get("served"):
        with open(config["subset_file"]) as file:
            _served = frozenset(json.load(file)["sizes"])
    _events = Connection(config["socket"], "events")
    if config.get("pace_bytes_per_s"):
        from dsanalyzer.hooks.pacing import Pacer

        _pace = Pacer(config["pace_file"], config["pace_bytes_per_s"], config["subset_file"])
    sys.addaudithook(_audit)
