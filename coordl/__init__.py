"""coordl: minibatches without data stalls. One line to adopt: `from coordl import DataLoader`.

Importing the package is cheap: torch comes with the first use of what needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from coordl.errors import (
    SKIP,
    CacheError,
    CoordlError,
    ItemError,
    PackedDataError,
    StateError,
)

if TYPE_CHECKING:
    from coordl import transforms
    from coordl.datasets import ImageFolder, PackedFolder
    from coordl.delivery.loader import DataLoader
    from coordl.fetch.cache import MinIOCache

__all__ = [
    "SKIP",
    "CacheError",
    "CoordlError",
    "DataLoader",
    "ImageFolder",
    "ItemError",
    "MinIOCache",
    "PackedDataError",
    "PackedFolder",
    "StateError",
    "transforms",
]

_HOME = {
    "DataLoader": "coordl.delivery.loader",
    "ImageFolder": "coordl.datasets",
    "MinIOCache": "coordl.fetch.cache",
    "PackedFolder": "coordl.datasets",
}


def __getattr__(name: str) -> Any:
    if name == "transforms":
        return importlib.import_module("coordl.transforms")
    if name not in _HOME:
        raise AttributeError(f"module 'coordl' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
