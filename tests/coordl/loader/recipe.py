"""What the loader's tests share: the usual training transform, and who of our threads runs."""

from __future__ import annotations

import os
from pathlib import Path

from coordl import transforms as T

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train_transform(edge: int = 48) -> T.Compose:
    return T.Compose(
        [T.RandomResizedCrop(edge), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)]
    )


def native_threads() -> list[str]:
    """Names of this process's fetch and prep threads."""
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            names.append(Path(f"/proc/self/task/{task}/comm").read_text().strip())
        except OSError:  # it ended meanwhile
            continue
    return [name for name in names if name.startswith("coordl-")]
