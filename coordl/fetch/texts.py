"""Many short texts as arrays: small, and never written to, so that forked processes share them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class Texts:
    """N texts, read by number."""

    def __init__(self, data: bytes, ends: NDArray[np.int64]) -> None:
        self._data = data
        self._ends = ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), dtype=np.int64)
        return cls(b"".join(parts), ends)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        row = range(len(self))[row]
        begin = int(self._ends[row - 1]) if row else 0
        return self._data[begin : int(self._ends[row])].decode("utf-8", "surrogatepass")

    def lengths(self) -> NDArray[np.int64]:
        """(N,), bytes of each."""
        return np.diff(self._ends, prepend=np.int64(0))

    def chosen(self, rows: Sequence[int]) -> Texts:
        """Those of `rows`, in their order; -1 is an empty one."""
        return Texts.of("" if row < 0 else self[row] for row in rows)
