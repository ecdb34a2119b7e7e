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
    GroupError,
    ItemError,
    PackedDataError,
    StateError,
    TarShardError,
)

if TYPE_CHECKING:
    from coordl import transforms
    from coordl.delivery.loader import DataLoader
    from coordl.delivery.ranks import EvaluationSampler
    from coordl.fetch.cache import MinIOCache
    from coordl.sources.audio import AudioFolder
    from coordl.sources.coco import CocoDetection, collate_detections
    from coordl.sources.huggingface import HuggingFaceAudio, HuggingFaceImages
    from coordl.sources.image_folder import ImageFolder, PackedFolder
    from coordl.sources.image_list import ImageList
    from coordl.sources.tar_shards import TarShards
    from coordl.staging.job_group import JobGroup

__all__ = [
    "SKIP",
    "AudioFolder",
    "CacheError",
    "CocoDetection",
    "CoordlError",
    "DataLoader",
    "EvaluationSampler",
    "GroupError",
    "HuggingFaceAudio",
    "HuggingFaceImages",
    "ImageFolder",
    "ImageList",
    "ItemError",
    "JobGroup",
    "MinIOCache",
    "PackedDataError",
    "PackedFolder",
    "StateError",
    "TarShardError",
    "TarShards",
    "collate_detections",
    "transforms",
]

_HOME = {
    "AudioFolder": "coordl.sources.audio",
    "CocoDetection": "coordl.sources.coco",
    "DataLoader": "coordl.delivery.loader",
    "EvaluationSampler": "coordl.delivery.ranks",
    "HuggingFaceAudio": "coordl.sources.huggingface",
    "HuggingFaceImages": "coordl.sources.huggingface",
    "ImageFolder": "coordl.sources.image_folder",
    "ImageList": "coordl.sources.image_list",
    "JobGroup": "coordl.staging.job_group",
    "MinIOCache": "coordl.fetch.cache",
    "PackedFolder": "coordl.sources.image_folder",
    "TarShards": "coordl.sources.tar_shards",
    "collate_detections": "coordl.sources.coco",
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
