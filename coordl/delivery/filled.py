"""Gaps of a natively made minibatch: samples that could not be made, what takes their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from coordl.delivery.carried import NOTHING
from coordl.delivery.on_error import BadSamples
from coordl.errors import SKIP, sample_name
from coordl.fetch.folder import Folder
from coordl.prep.keyed import keyed_draws


class Filled:
    """One minibatch being filled.

    Args:
        on_error: the loader's.
        folder: its data set.
        indices, rows: of its samples, int64 (B,).
        key: (seed, epoch) of its draws.

    Attributes:
        bad: its samples that could not be made.
        instead: what takes their place, by row; SKIP for nothing.
    """

    def __init__(
        self,
        on_error: Any,
        folder: Folder,
        indices: np.ndarray,
        rows: np.ndarray,
        key: tuple[int, int],
    ) -> None:
        self.bad = BadSamples()
        self._on_error = on_error
        self._folder = folder
        self._indices, self._rows = indices, rows
        self._key = key
        self.instead: dict[int, Any] = {}

    @contextmanager
    def sample(self, row: int) -> Iterator[None]:
        """Makes sample `row` of the minibatch; what fails inside is on_error's."""
        try:
            yield
        except Exception as error:
            index, path = int(self._indices[row]), self._folder.name(self._rows[row])
            with keyed_draws(*self._key, index):
                self.instead[row] = self.bad.meet(self._on_error, error, index, path)

    def collated(self, images: torch.Tensor, targets: list[Any]) -> Any:
        """[images, targets] as default_collate makes them; NOTHING where no sample is left.

        Args:
            images: (B, ...), with anything in the gaps.
            targets: B of them.

        Raises:
            ValueError: what on_error returned does not fit in there.
        """
        for row, sample in self.instead.items():
            if sample is not SKIP:
                images[row], targets[row] = self._checked(sample, images[row], row)
        if self.bad.skipped:
            kept = [row for row in range(len(targets)) if self.instead.get(row) is not SKIP]
            if not kept:
                return NOTHING
            last = images.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            images = images[kept].contiguous(memory_format=layout)
            targets = [targets[row] for row in kept]
        return [images, default_collate(tuple(targets))]  # type: ignore[arg-type]

    def _checked(self, sample: Any, place: torch.Tensor, row: int) -> tuple[torch.Tensor, Any]:
        image = sample[0] if isinstance(sample, list | tuple) and len(sample) == 2 else None
        if isinstance(image, torch.Tensor) and (image.shape, image.dtype) == (
            place.shape,
            place.dtype,
        ):
            return image, sample[1]
        name = sample_name(self._indices[row], self._folder.name(self._rows[row]))
        raise ValueError(
            f"{name}: what on_error returned in its place is no (image, "
            f"target) with a tensor of {place.dtype} {tuple(place.shape)}, as the data set gives, "
            "nor coordl.SKIP"
        )
