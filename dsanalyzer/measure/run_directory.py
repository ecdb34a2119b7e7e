"""Where a profile keeps its files while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dsanalyzer.measure.throttle import reap_stale

_PREFIX = "dsanalyzer-"


def _reap_stale_runs(root: Path) -> None:
    for old in root.glob(_PREFIX + "*"):
        pid = old.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """A private directory for one profile; those of tools that were killed are removed first."""
    root = Path(tempfile.gettempdir())
    _reap_stale_runs(root)
    reap_stale()
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
