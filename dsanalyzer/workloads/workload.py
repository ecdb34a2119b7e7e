"""What a workload is: files of a folder, a data set over them, a net and its loss."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Samples = list[tuple[str, int]]  # (path, class)


class NoJob(ValueError):
    """The job cannot be made; the message says what to give instead."""


@dataclass(frozen=True)
class Workload:
    """One kind of training.

    Attributes:
        what: its files, for reading: "pictures".
        suffixes: by which they are known.
        models: names that `build` knows.
        data: the data set of (path, class) pairs, map-style.
        build: the net of that name.
        loss: of a net and a minibatch, both on the device: a scalar tensor.
        why_not: why a model cannot be trained here, `emulated` or not; empty where it can.
    """

    what: str
    suffixes: tuple[str, ...]
    models: tuple[str, ...]
    data: Callable[[Samples], Any]
    build: Callable[[str], Any]
    loss: Callable[[Any, Any], Any]
    why_not: Callable[[str, bool], str] = lambda model, emulated: ""

    def samples(self, folder: Path) -> Samples:
        """(path, class) of every such file below `folder`, or below its train/; sorted.

        Raises:
            NoJob: no such folder, or none in it.
        """
        if not folder.is_dir():
            raise NoJob(
                f"{folder} is no folder; give one with {self.what}, in folders by class or flat"
            )
        root = folder / "train" if (folder / "train").is_dir() else folder
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in self.suffixes)
        if not paths:
            raise NoJob(f"no {self.what} ({', '.join(self.suffixes)}) below {root}")
        classes = {name: n for n, name in enumerate(sorted({path.parent for path in paths}))}
        return [(str(path.absolute()), classes[path.parent]) for path in paths]


def installed(name: str) -> Any:
    """The module; None where it is missing or was built for another torch."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError):
        return None


def small_net(classes: int) -> Any:
    """Stands in where a net is not to be had: an emulated accelerator needs any."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )
