"""coordl's prep rates: from files, or asked of the coordl command. Only JSON passes between."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from dsanalyzer.report.document import Result


def read_rates(paths: list[Path]) -> dict[str, Any]:
    """What `coordl rates` wrote, by form.

    Raises:
        ValueError: not such a file, or two of one form.
    """
    found: dict[str, Any] = {}
    for path in paths:
        try:
            document = json.loads(path.read_text())
            document["threads"], document["prep_rate"]["value"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not what `coordl rates` writes: {error!r}") from None
        form = document.get("form", "original")
        if form in found:
            raise ValueError(f"{path} is of {form} items, as another --rates is; give one per form")
        found[form] = document
    return found


def coordl_command() -> str | None:
    """The coordl command beside this interpreter, or on PATH."""
    beside = Path(sys.executable).with_name("coordl")
    return str(beside) if beside.exists() else shutil.which("coordl")


def far(measured: Result) -> bool:
    """Whether the items lie behind a network, where coordl's prep alone is not measured."""
    return any("://" in name for name in measured["dataset"]["files"][:1])


def measured_rates(measured: Result, form: str) -> dict[str, Any]:
    """Asks coordl for its prep rate on the profiled items.

    Raises:
        ValueError: coordl is not there, or could not measure it.
    """
    command = coordl_command()
    if command is None:
        raise ValueError("the coordl command is not installed here; give its rates with --rates")
    if far(measured):
        raise ValueError(
            f"the items lie at {measured['dataset']['files'][0]} and on; measure coordl's rate on "
            "a part of them copied to a disk (`coordl rates --help`), and give it with --rates"
        )
    shape = cast(dict[str, Any], measured["loader"]).get("sample_shape") or [3, 224, 224]
    with tempfile.TemporaryDirectory(prefix="dsanalyzer-") as scratch:
        files, rates = Path(scratch, "files.txt"), Path(scratch, "rates.json")
        names = [name for name in measured["dataset"]["files"] if "\n" not in name]
        files.write_bytes(os.fsencode("\n".join(names)))
        done = subprocess.run(
            [
                *(command, "rates", "--files", str(files), "-o", str(rates)),
                *("--crop", f"{shape[-2]}x{shape[-1]}", "--form", form),
                *("--threads", str(max(1, measured["loader"]["num_workers"]))),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ValueError(f"coordl could not measure its rate: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(rates.read_text())
    return found
