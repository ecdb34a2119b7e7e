"""What the job does between two minibatches: optimizer steps, and the device they run on.

A loader is a training loader when an optimizer steps between its minibatches. With `gpu_rate` the
model is handed to the emulated accelerator (hooks/emulate.py) after its first real step.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

_steps = 0
_emulator: Any = None


def steps() -> int:
    """Optimizer steps so far in this process."""
    return _steps


def count_step() -> None:
    """A training step was made, whether or not an optimizer was in it."""
    global _steps
    _steps += 1


def delivered(samples: int) -> None:
    """The job has its next minibatch: what the emulated accelerator, if there is one, will owe."""
    if _emulator is not None:
        _emulator.owed = samples


def watch() -> None:
    """A loader is iterated: from here the emulator, if there is one, learns the models."""
    if _emulator is not None:
        _emulator.watch()


def settle() -> None:
    """The first real steps are done: the emulator, if there is one, knows the models."""
    if _emulator is not None:
        _emulator.settle()


def synchronize() -> None:
    """Wait until the device has done what it was given."""
    if _emulator is not None:
        _emulator.synchronize()
        return
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def emulated() -> str | None:
    """How the accelerator is emulated, None when it is not (or not yet)."""
    return _emulator.how if _emulator is not None else None


def patch(module: ModuleType, config: dict[str, Any]) -> None:
    """`module` is torch.optim.optimizer; its global step hooks see every optimizer."""
    owner = os.getpid()

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        global _steps
        if os.getpid() == owner:
            _steps += 1

    module.register_optimizer_step_post_hook(after_step)
    if config.get("gpu_rate"):
        from dsanalyzer.hooks.emulate import Emulator

        global _emulator
        _emulator = Emulator(config["gpu_rate"], module, config.get("gpu_trace") or ())


def quiet_schedulers() -> None:
    """From now on learning-rate schedulers stand still.

    The profiled epoch is longer than the job's own, and schedulers with a fixed number of steps
    (OneCycleLR) would raise. The learning rate does not change what a step costs.
    """
    from torch.optim import lr_scheduler

    classes = [lr_scheduler.LRScheduler]
    for cls in classes:
        classes += cls.__subclasses__()
        if "step" in vars(cls):
            cls.step = lambda self, *args, **kwargs: None  # type: ignore[method-assign]
