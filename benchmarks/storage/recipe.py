"""What every program does with a picture: ImageNet's training crop to uint8 (3, 224, 224)."""

from __future__ import annotations

SIZE = 224
WORKERS = 2
SEED = 1
