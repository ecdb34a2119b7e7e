"""dsanalyzer whatif: predict from a profile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console

from dsanalyzer import quantity
from dsanalyzer.cli.profile import refuse_to_overwrite
from dsanalyzer.predict.whatif import Change, ask, usual_changes
from dsanalyzer.report import load, terminal
from dsanalyzer.report.document import Result

err = Console(stderr=True)


def whatif(
    result: Annotated[Path, typer.Argument(help="Result file of `dsanalyzer profile`.")],
    cache: Annotated[str | None, typer.Option(help="Cached share of the data set: 80%.")] = None,
    cores: Annotated[int | None, typer.Option(help="CPU cores for prep.", min=1)] = None,
    storage: Annotated[
        str | None, typer.Option(help="Storage rate: 500MB/s, hdd, sata-ssd, nvme.")
    ] = None,
    gpu_speedup: Annotated[str | None, typer.Option(help="Faster or more GPUs: 2x.")] = None,
    loader: Annotated[
        str | None, typer.Option(help="Another loader: coordl (its prep rate is measured now).")
    ] = None,
    rates: Annotated[
        Path | None, typer.Option(help="What `coordl rates` wrote, instead of measuring now.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write JSON too.")] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the output.")] = False,
) -> None:
    """Predict the training speed after a change, from the rates a profile measured.

    Each option is one scenario; several are also taken together. Without options the usual
    questions are answered.
    """
    refuse_to_overwrite([output] if output is not None else [], force)
    try:
        measured = load.load_result(result)
        asked = _changes(cache, cores, storage, gpu_speedup, loader)
    except (load.DocumentError, ValueError) as error:
        err.print(str(error), highlight=False)
        raise typer.Exit(2) from None
    changes = asked or usual_changes(measured, coordl=_coordl() is not None)
    loader_rates = None
    if any(change.loader for change in changes):
        try:
            loader_rates = _read_rates(rates) if rates else _measure_coordl(measured)
        except ValueError as error:
            err.print(str(error), highlight=False)
            if asked:
                raise typer.Exit(2) from None
            changes = [
                change for change in changes if not change.loader
            ]  # the rest can be answered
    answer = ask(measured, changes, str(result), loader_rates)
    if output is not None:
        output.write_text(json.dumps(answer, indent=1))
    terminal.whatif_table(answer, Console())
    if output is not None:
        print(output)


def _changes(
    cache: str | None,
    cores: int | None,
    storage: str | None,
    gpu_speedup: str | None,
    loader: str | None,
) -> list[Change]:
    if loader not in (None, "coordl"):
        raise ValueError(f"unknown loader {loader!r}; coordl is the one that can be predicted")
    single = [
        Change(cached_fraction=None if cache is None else quantity.fraction(cache)),
        Change(cores=cores),
        Change(storage_bytes_per_s=None if storage is None else quantity.bytes_per_s(storage)),
        Change(gpu_speedup=None if gpu_speedup is None else quantity.factor(gpu_speedup)),
        Change(loader=loader),
    ]
    asked = [change for change in single if change != Change()]
    return asked if len(asked) < 2 else [*asked, reduce(Change.merged, asked)]


def _read_rates(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        found["threads"], found["prep_rate"]["value"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what `coordl rates` writes: {error!r}") from None
    return dict(found)


def _coordl() -> str | None:
    beside = Path(sys.executable).with_name("coordl")
    return str(beside) if beside.exists() else shutil.which("coordl")


def _measure_coordl(measured: Result) -> dict[str, Any]:
    """Ask coordl for its prep rate on the profiled items. Only JSON passes between the packages."""
    command = _coordl()
    if command is None:
        raise ValueError("the coordl command is not installed here; give its rates with --rates")
    shape = cast(dict[str, Any], measured["loader"]).get("sample_shape") or [3, 224, 224]
    with tempfile.TemporaryDirectory(prefix="dsanalyzer-") as scratch:
        files, rates = Path(scratch, "files.txt"), Path(scratch, "rates.json")
        names = [name for name in measured["dataset"]["files"] if "\n" not in name]
        files.write_bytes(os.fsencode("\n".join(names)))
        with err.status("measuring coordl's prep rate on these items"):
            done = subprocess.run(
                [
                    *(command, "rates", "--files", str(files), "-o", str(rates)),
                    *("--crop", f"{shape[-2]}x{shape[-1]}"),
                    *("--threads", str(max(1, measured["loader"]["num_workers"]))),
                ],
                capture_output=True,
                text=True,
            )
        if done.returncode:
            raise ValueError(f"coordl could not measure its rate: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(rates.read_text())
    return found
