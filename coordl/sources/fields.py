"""Fields of samples in tar shards: from bytes to values, by extension."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

_NUMBERS = frozenset({"cls", "cls2", "class", "count", "index", "inx", "id"})
_TEXTS = frozenset({"txt", "text", "transcript"})


def is_number(extension: str) -> bool:
    return extension.rpartition(".")[2] in _NUMBERS


def decode_field(extension: str, data: bytes | memoryview) -> Any:
    """The value of a field; the last part of its extension says how, "seg.npy" is "npy".

    cls, cls2, class, count, index, inx, id: int. txt, text, transcript: str. json: what it holds.
    npy: the array; of numbers only, nothing is ever unpickled. Anything else: bytes.

    Raises:
        ValueError: it is not what its extension says.
    """
    kind = extension.rpartition(".")[2]
    if is_number(kind):
        return int(bytes(data))
    if kind in _TEXTS:
        return str(data, "utf-8")
    if kind == "json":
        return json.loads(bytes(data))
    if kind == "npy":
        try:
            return np.load(io.BytesIO(data), allow_pickle=False)
        except EOFError as error:
            raise ValueError(f"no NumPy array: {error}") from error
    return bytes(data)
