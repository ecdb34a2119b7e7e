"""What `dsanalyzer watch` sees, as scalars in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsanalyzer.measure.watch import Waited


class Board:
    """Writes event files into a folder.

    Raises:
        ImportError: tensorboard is not installed; says what to install.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "--tensorboard wants the package tensorboard: pip install tensorboard"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def add(self, now: Waited, total: Waited) -> None:
        """The last second or so, at the number of minibatches so far."""
        self._writer.add_scalar("dsanalyzer/wait_share", now.share, total.batches)
        self._writer.add_scalar("dsanalyzer/samples_per_s", now.rate, total.batches)

    def close(self) -> None:
        self._writer.close()
