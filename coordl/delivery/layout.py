"""Minibatches in the memory format the model wants, where they are collated in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from coordl.staging.around import AroundCollate

FORMATS = (torch.contiguous_format, torch.channels_last)


class InMemoryFormat(AroundCollate):
    """A collate function whose images, the tensors of four dimensions, come in one memory format.

    They are looked for where samples put them: in the minibatch itself, its sequence or mapping.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], memory_format: torch.memory_format):
        self.collate = collate
        self.memory_format = memory_format

    def __call__(self, samples: list[Any]) -> Any:
        return self._formatted(self.collate(samples))

    def _formatted(self, data: Any) -> Any:
        if isinstance(data, torch.Tensor):
            return data.contiguous(memory_format=self.memory_format) if data.dim() == 4 else data
        if type(data) in (list, tuple):
            return type(data)(self._formatted(part) for part in data)
        if type(data) is dict:
            return {key: self._formatted(part) for key, part in data.items()}
        return data
