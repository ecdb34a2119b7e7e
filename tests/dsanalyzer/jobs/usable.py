"""To be imported before a framework that imports torchvision, which may be a CUDA build."""

import contextlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
with contextlib.suppress(ModuleNotFoundError):
    import usable_torchvision  # noqa: F401
