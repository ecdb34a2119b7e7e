"""Random generators an epoch's order is drawn from, and their states as text.

Text, so that a loader's state can be written as JSON.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch

TORCHS = "torch"  # the role of torch's global CPU generator


def own_generators(loader: Any) -> dict[str, torch.Generator]:
    """Generators that belong to the loader or its samplers, each once, by role."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    holders = {
        "loader": loader,
        "sampler": loader.sampler,
        "batch_sampler": loader.batch_sampler,
        "batch_sampler.sampler": inner,
    }
    found: dict[str, torch.Generator] = {}
    for role, holder in holders.items():
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and generator not in found.values():
            found[role] = generator
    return found


def text_of(state: torch.Tensor) -> str:
    """A generator's state, uint8 (n,), as text of constant size."""
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def read(generator: torch.Generator) -> str:
    return text_of(generator.get_state())


def write(generator: torch.Generator, state: str) -> None:
    """Puts a generator where read() found it."""
    array = np.frombuffer(base64.b64decode(state), np.uint8).copy()
    generator.set_state(torch.from_numpy(array))


def write_all(generators: dict[str, torch.Generator], states: dict[str, str]) -> None:
    """Puts those back whose role a state knows."""
    for role, generator in generators.items():
        if role in states:
            write(generator, states[role])
