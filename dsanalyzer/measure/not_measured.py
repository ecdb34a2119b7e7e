"""Why there is no result, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from dsanalyzer.observer import Observer

_NO_GPU = (
    "Torch not compiled with CUDA enabled",
    "Found no NVIDIA driver",
    "No CUDA GPUs are available",
    "no CUDA-capable device",
)


class NotMeasured(Exception):
    """There is no result; the message says why and what to do.

    Attributes:
        log: the job's own output, where that may explain it.
        part: the training loader and the passes there were until then; see dsanalyzer.partial.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.part: tuple[dict[str, Any], list[dict[str, Any]]] | None = None


@contextlib.contextmanager
def cannot_run(command: Sequence[str]) -> Iterator[None]:
    """Within it, a command that is not there, or may not be run, raises NotMeasured."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise NotMeasured(f"cannot run {command[0]!r}: {error.strerror}") from error


def hint(log: str) -> str:
    """What to do about a script's own error that a profile makes likely; else nothing."""
    last = log[-2000:]
    if "EOF when reading a line" in last:
        return (
            ": it asked for input, and a profiled job, which runs twice, has none. Give its "
            "answers as arguments, or profile `bash -c 'yes | python train.py'`"
        )
    if any(words in last for words in _NO_GPU):
        return (
            ": it wants a GPU and there is none here. Let it train on the CPU (most scripts have "
            "an option for that) and name the GPU's speed with --gpu-rate N samples/s, which "
            "stands in for it"
        )
    return ""


def check(
    observer: Observer, code: int | None, log: str, *, phase: str, patience_s: float, steps: int
) -> None:
    """Raises NotMeasured, unless the run was measured to its end.

    Args:
        code: how the job ended; None: it was ended.
        log: its output.
        phase: what it was last at.
        patience_s: Options.patience_s.
        steps: of training that the profile needs in one run.
    """
    if observer.failure is not None:
        raise NotMeasured(f"{observer.failure}", log) from observer.failure
    if observer.refused is not None:
        raise NotMeasured(observer.refused)
    if observer.silent:
        raise NotMeasured(_silence(phase, patience_s), log)
    if observer.aimless:
        raise NotMeasured(_aimless(observer, patience_s), log)
    if observer.done.is_set():
        return
    if observer.gone is not None:
        raise NotMeasured(
            f"{observer.gone}: ranks that train together make as many steps. {_steps_advice(steps)}"
        )
    if not observer.hooked:
        if code:
            raise NotMeasured(
                f"the command failed with exit code {code} before it began{hint(log)}", log
            )
        raise NotMeasured(
            "no Python process of the command loaded the hooks. Does it run python with -I, -E "
            "or -S, or inside a container or on another machine? Profile it there."
        )
    if code:
        raise NotMeasured(f"the training script failed with exit code {code}{hint(log)}", log)
    if not observer.loaders:
        raise NotMeasured(
            "the script ended without iterating a torch DataLoader, so there was nothing to "
            "measure",
            log,
        )
    if observer.ordinal is None:
        raise NotMeasured(
            "the script ended before three training steps were seen (an optimizer step between "
            f"two minibatches of one DataLoader). {_steps_advice(steps)}",
            log,
        )
    raise NotMeasured(
        f"the script ended before the profile did. {_steps_advice(steps)}",
        log,
    )


def _silence(phase: str, patience_s: float) -> str:
    return (
        f"nothing has come from the job for {patience_s:.0f} s, last: "
        f"{phase}. It hangs, or waits for something, or its imports or a step take that "
        "long: then wait longer with --patience"
    )


def _aimless(observer: Observer, patience_s: float) -> str:
    waited = f"after {patience_s:.0f} s"
    if not observer.loaders:
        return (
            f"{waited} the job still has not iterated a torch DataLoader. If it reads its data "
            "by other means (arrays, DALI, an iterator of its own), put dsanalyzer.wrap around "
            "them; if it takes that long to begin, wait longer with --patience"
        )
    return (
        f"{waited} of minibatches no torch optimizer has stepped between three of one loader, "
        "so nothing says which loop trains. Where none of torch's optimizers steps, measure "
        "the loop from Python with dsanalyzer.profile(loader, step); where one step takes that "
        "long, wait longer with --patience"
    )


def _steps_advice(steps: int) -> str:
    return (
        f"The profile needs up to {steps} training steps in one run: give the script more steps or "
        "epochs (the profile stops it), or measure less with --budget, --samples, --rounds and "
        "--block."
    )
