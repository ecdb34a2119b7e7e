"""dsanalyzer whatif: predict from a profile."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dsanalyzer import quantity
from dsanalyzer.cli.coordl_rates import coordl_command, far, measured_rates, read_rates
from dsanalyzer.cli.given import maybe
from dsanalyzer.cli.profile import progress_of, refuse_to_overwrite
from dsanalyzer.cli.verify import verify_all
from dsanalyzer.job import terminate_as_interrupt
from dsanalyzer.predict import fixes, prices
from dsanalyzer.predict.change import Change
from dsanalyzer.predict.whatif import Basis, ask, usual_changes
from dsanalyzer.report import load, terminal
from dsanalyzer.report.document import Result, WhatIf

err = Console(stderr=True)
VERIFY_S = 180.0  # that one run takes, about


def whatif(
    result: Annotated[Path, typer.Argument(help="Result file of `dsanalyzer profile`.")],
    cache: Annotated[str | None, typer.Option(help="Cached share of the data set: 80%.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Of that cache: lru, never-evict or pagecache.")
    ] = None,
    cores: Annotated[int | None, typer.Option(help="CPU cores for prep.", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Workers of the loader.", min=0)] = None,
    storage: Annotated[
        str | None, typer.Option(help="Storage rate: 500MB/s, hdd, sata-ssd, nvme.")
    ] = None,
    gpu_speedup: Annotated[str | None, typer.Option(help="A faster GPU: 2x.")] = None,
    gpus: Annotated[
        int | None, typer.Option(help="So many GPUs for the job, in all.", min=1)
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Jobs on this server, alone and coordinated.", min=2)
    ] = None,
    servers: Annotated[
        int | None, typer.Option(help="Servers of one job, caches alone and partitioned.", min=2)
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Between the servers: 10Gbit/s, 1.2GB/s.")
    ] = None,
    shared_storage: Annotated[
        bool, typer.Option("--shared-storage", help="The servers read from one storage.")
    ] = False,
    loader: Annotated[
        str | None, typer.Option(help="Another loader: coordl (its prep rate is measured now).")
    ] = None,
    form: Annotated[
        str | None, typer.Option(help="How coordl holds items: original, indexed or packed.")
    ] = None,
    rates: Annotated[
        list[Path] | None,
        typer.Option(help="What `coordl rates` wrote, instead of measuring; one per form."),
    ] = None,
    price_file: Annotated[
        Path | None,
        typer.Option("--prices", help="Price file (TOML, JSON, YAML): rank what it offers."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--verify", help="Run what can be run here, and say how far off it was."),
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write JSON too.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of the result too.")] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the outputs.")] = False,
) -> None:
    """Predict the training speed after a change, from the rates a profile measured.

    Each option is one scenario; several are also taken together. Without options the usual
    questions are answered. The closed form min(F, P, G) and a simulation of the pipeline both
    answer; where they differ the simulation is shown, and what the closed form leaves out.
    """
    outputs = [path for path in (output, html) if path is not None]
    refuse_to_overwrite(outputs, force)
    try:
        measured = load.load_result(result)
        asked = _changes(
            Change(loader=_known_loader(loader, form), form=form),
            Change(cached_fraction=maybe("--cache", quantity.fraction, cache)),
            Change(policy=_known_policy(policy)),
            Change(cores=cores),
            Change(workers=workers),
            Change(storage_bytes_per_s=maybe("--storage", quantity.bytes_per_s, storage)),
            Change(gpu_speedup=maybe("--gpu-speedup", quantity.factor, gpu_speedup)),
            Change(gpus=gpus),
        )
        asked = _shared(asked, jobs, servers, network, shared_storage)
        offered = None if price_file is None else prices.load(price_file)
    except (load.DocumentError, ValueError) as error:
        _refuse(error)
    changes = asked
    if not asked and offered is None:
        near = coordl_command() is not None and not far(measured)
        changes = usual_changes(measured, coordl=bool(rates) or near)
    loader_rates = _rates(measured, changes, offered, rates or [], required=bool(asked))
    if loader_rates is None:  # the rest can be answered
        changes = [change for change in changes if not change.loader]
    try:
        answer = ask(measured, changes, str(result), loader_rates)
        if offered is not None:
            basis = Basis.of(measured)
            answer["fixes"] = fixes.rank(basis, offered, loader_rates)  # type: ignore[typeddict-item]
            answer["present_cost_per_epoch"] = fixes.present_cost(measured, offered)
    except ValueError as error:
        _refuse(error)
    _write(answer, measured, output, html)  # before anything is run
    if check:
        _verify(answer, measured)
        _write(answer, measured, output, html)
    terminal.whatif_table(answer, Console())
    for path in outputs:
        print(path)
    if any(scenario.get("verified", {}).get("failed") for scenario in answer["scenarios"]):
        raise typer.Exit(1)


def _verify(answer: WhatIf, measured: Result) -> None:
    """Runs the scenarios one after the other, with progress on stderr."""
    with terminate_as_interrupt(), progress_of(VERIFY_S) as progress:

        def announce(name: str) -> Any:
            progress(f"verifying {name}")
            return progress

        try:
            verify_all(measured, answer["scenarios"], announce)
        except KeyboardInterrupt:
            err.print("Interrupted; the job and everything it made were ended.")
            raise typer.Exit(130) from None


def _write(answer: WhatIf, measured: Result, output: Path | None, html: Path | None) -> None:
    if output is not None:
        output.write_text(json.dumps(answer, indent=1))
    if html is not None:
        from dsanalyzer.report import page

        try:
            page.write_page(measured, html, answer)
        except page.ReportExtraMissing as error:
            _refuse(error)


def _refuse(error: Exception) -> None:
    err.print(str(error), highlight=False, markup=False)
    raise typer.Exit(2)


def _known_loader(loader: str | None, form: str | None) -> str | None:
    if loader not in (None, "coordl"):
        raise ValueError(f"unknown loader {loader!r}; coordl is the one that can be predicted")
    return loader or ("coordl" if form else None)


def _known_policy(policy: str | None) -> str | None:
    from dsanalyzer.predict.model import POLICIES

    if policy is not None and policy not in POLICIES:
        raise ValueError(f"unknown cache policy {policy!r}; choose one of {', '.join(POLICIES)}")
    return policy


def _changes(*single: Change) -> list[Change]:
    """Each that asks for something, and all of them together."""
    asked = [change for change in single if change.asked]
    return asked if len(asked) < 2 else [*asked, reduce(Change.merged, asked)]


def _shared(
    asked: list[Change],
    jobs: int | None,
    servers: int | None,
    network: str | None,
    shared_storage: bool,
) -> list[Change]:
    """Jobs and servers, each without and with coordination, on top of all else that is asked."""
    if servers is None and (network is not None or shared_storage):
        raise ValueError("--network and --shared-storage are between servers: add --servers N")
    if jobs is not None and servers is not None:
        Change(jobs=jobs, servers=servers)  # says why not
    base = asked[-1] if asked else Change()
    made = list(asked)
    for together in (False, True):
        if jobs is not None:
            made.append(base.merged(Change(jobs=jobs, coordinated=together or None)))
        if servers is not None:
            made.append(
                base.merged(
                    Change(
                        servers=servers,
                        partitioned=together or None,
                        # A page cache belongs to its own kernel: partitions never evict.
                        policy="never-evict" if together else None,
                        network_bytes_per_s=maybe(
                            "--network", quantity.network_bytes_per_s, network
                        ),
                        shared_storage=shared_storage or None,
                    )
                )
            )
    return made


def _rates(
    measured: Result,
    changes: list[Change],
    offered: prices.Prices | None,
    files: list[Path],
    *,
    required: bool,
) -> dict[str, Any] | None:
    """Documents of `coordl rates` by form: those given, else measured now where one is needed."""
    try:
        if files:
            return read_rates(files)
        forms = {change.form or "original" for change in changes if change.loader}
        if offered is not None and "coordl" in offered.loaders:
            forms.add("original")
        if not forms:
            return None
        with err.status("measuring coordl's prep rate on these items"):
            return {form: measured_rates(measured, form) for form in sorted(forms)}
    except ValueError as error:
        err.print(str(error), highlight=False, markup=False)
        if required:
            raise typer.Exit(2) from None
        return None
