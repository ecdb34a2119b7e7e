"""One sample as bytes that any process of the group can make it from again."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import torch


class _Pickler(pickle.Pickler):
    """Plain CPU tensors go as their bytes; torch's own way would be an archive for each."""

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is not torch.Tensor:
            return NotImplemented
        plain = thing.layout is torch.strided and thing.device.type == "cpu"
        if not plain or thing.requires_grad or thing.is_quantized or thing.is_conj():
            return NotImplemented
        flat: Any = thing.detach().contiguous().view(-1)
        array: Any = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
        return _tensor, (pickle.PickleBuffer(array), thing.dtype, tuple(thing.shape))


def _tensor(data: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(shape)


def to_record(sample: Any) -> bytes:
    """Raises whatever pickling it raises."""
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(sample)
    return file.getvalue()


def from_record(record: bytes) -> Any:
    """The sample; its tensors are its own and may be written to."""
    return pickle.loads(record)
