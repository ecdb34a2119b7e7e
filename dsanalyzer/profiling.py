"""`dsanalyzer.profile(loader, step)`: the profile of a loop of one's own, as in a notebook."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsanalyzer.report.document import Result

LOG_LINES = 20  # of what the loop itself printed, shown where it failed
_kept: list[Any] = []  # in a fork: what is never collected there


def profile(
    loader: Iterable[Any],
    step: Callable[[Any], Any],
    *,
    output: str | os.PathLike | None = None,
    trace: str | os.PathLike | None = None,
    show: bool = True,
    cached: str | float = "50%",
    policy: str = "lru",
    storage: str | float | None = None,
    gpu_rate: float | None = None,
    budget: str | float = "3m",
    samples: int | None = None,
    rounds: int | None = None,
    epochs: int | None = None,
    block: float = 2.0,
    sweep: Sequence[int] = (),
    threshold: str | float = "2%",
    patience: str | float = "10m",
    seed: int = 0,
) -> Result:
    """Measures `for minibatch in loader: step(minibatch)` as `dsanalyzer profile` does a script.

        result = dsanalyzer.profile(loader, train_step, cached="65%", output="before.json")

    The loop runs in forks of this process, twice, so that nothing here changes: no parameter, no
    random generator, no file. CUDA must not be in use here: it does not outlive a fork.

    Args:
        loader: torch's DataLoader or a subclass; or anything else that yields minibatches and
            starts anew each time it is iterated (see `dsanalyzer.wrap`).
        step: one training step on a minibatch as the loader yields it, the optimizer's included.
        output: also write the result there as JSON, for `dsanalyzer whatif`, `report`, `compare`.
        trace: also write there what happened when, as a Chrome trace (for ui.perfetto.dev).
        show: tell the phases on stderr, and print the table in the end.
        cached, policy, storage, gpu_rate, budget, samples, rounds, epochs, block, sweep,
            threshold, patience, seed: as the options of `dsanalyzer profile`. Shares, rates and
            times are numbers (shares of 1, bytes/s, seconds) or text ("65%", "15MB/s", "90s").

    Returns the result as the command writes it: a dict (report/schema/result.schema.json).

    Raises:
        ValueError: an option makes no sense.
        TypeError: the loader can be iterated only once, or not at all.
        FileExistsError: `output` or `trace` exists already.
        dsanalyzer.measure.not_measured.NotMeasured: it could not be measured; says why.
    """
    from dsanalyzer import quantity, wrap
    from dsanalyzer.forked import ForkedJob
    from dsanalyzer.hooks import startup
    from dsanalyzer.measure.not_measured import NotMeasured
    from dsanalyzer.measure.options import Options
    from dsanalyzer.measure.run_directory import run_directory
    from dsanalyzer.measure.session import Session

    options = Options(
        policy=policy,
        cached_fraction=_number(cached, quantity.fraction),
        storage_bytes_per_s=None if storage is None else _number(storage, quantity.bytes_per_s),
        gpu_rate=gpu_rate,
        budget_s=_number(budget, quantity.duration_s),
        samples=samples,
        rounds=rounds,
        block_s=block,
        epochs=epochs,
        sweep=tuple(sweep),
        threshold=_number(threshold, quantity.fraction),
        patience_s=_number(patience, quantity.duration_s),
        seed=seed,
    )
    for path in (output, trace):
        if path is not None and os.path.exists(path):
            raise FileExistsError(f"{os.fspath(path)} exists; choose another name or remove it")
    if startup.is_installed():
        raise NotMeasured(
            "this process is profiled or watched by dsanalyzer already, from outside; profile the "
            "script, or call dsanalyzer.profile in it, not both"
        )
    _check_forkable()
    import torch.utils.data

    seen = loader if isinstance(loader, torch.utils.data.DataLoader) else wrap(loader)
    command = [f"dsanalyzer.profile({type(loader).__name__}, {_name(step)})"]

    def start(run_dir: Path, throttle: Any, log: Any) -> ForkedJob:
        return ForkedJob(lambda: _loop(seen, step), run_dir, throttle=throttle, output=log)

    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(run_directory())
        progress = stack.enter_context(_progress(options.budget_s, show))
        try:
            measured = Session(command, options, directory, progress, start=start).measure()
        except NotMeasured as error:
            said = "\n".join(error.log.rstrip().splitlines()[-LOG_LINES:])
            told = NotMeasured(f"{error}\n{said}".rstrip(), error.log)
            told.part = error.part
            raise told from error.__cause__
    from dsanalyzer import result as results

    result = results.build(command, options, measured)
    if output is not None:
        Path(output).write_text(json.dumps(result, indent=1))
    if trace is not None:
        from dsanalyzer.report import chrome

        chrome.write(measured.timelines, result, Path(trace))
    if show:
        from rich.console import Console

        from dsanalyzer.report import terminal

        terminal.summary(result, Console(), path=str(output or "result.json"))
    return result


def _loop(loader: Any, step: Callable[[Any], Any]) -> None:
    """The training loop, in the fork: epochs until the profile has what it needs."""
    from dsanalyzer.hooks import training

    # Workers that persist are the asking process's: not ours to use, nor to end, as their iterator
    # does when it is collected.
    if (theirs := getattr(loader, "_iterator", None)) is not None:
        _kept.append(theirs)
        loader._iterator = None
    while True:
        got_one = False
        for minibatch in loader:
            got_one = True
            step(minibatch)
            training.count_step()
        if not got_one:
            raise ValueError("the loader yields no minibatch")


def _check_forkable() -> None:
    import torch

    from dsanalyzer.measure.not_measured import NotMeasured

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise NotMeasured(
            "this process uses CUDA, which does not outlive the fork that the loop is measured in. "
            "Put the loop into a script and run `dsanalyzer profile -- python script.py`"
        )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise NotMeasured(
            "this process is a rank of a torch.distributed job, which a fork of it is not. Run "
            "`dsanalyzer profile -- torchrun ...` instead"
        )


def _number(value: str | float, parse: Callable[[str], float]) -> float:
    return parse(value) if isinstance(value, str) else float(value)


def _name(step: Callable[[Any], Any]) -> str:
    return getattr(step, "__qualname__", type(step).__name__)


def _progress(budget_s: float, show: bool) -> Any:
    if show:
        from dsanalyzer.cli.profile import progress_of

        return progress_of(budget_s)
    return contextlib.nullcontext(_Silent())


class _Silent:
    total_s = 0.0

    def __call__(self, text: str) -> None:
        """Says nothing."""
