"""Image and audio columns of Hugging Face data sets, read without decoding what is not wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.data

from coordl.errors import item_error
from coordl.fetch.held_file import HeldFile
from coordl.sources.clip import Place, below, cut_of, read_clip
from coordl.sources.huggingface_column import Column, check_dataset
from coordl.sources.image_folder import open_item

Read = Callable[[int], bytes | memoryview]
_SNIFFED = 64  # rows whose first bytes say which formats the pictures are in


class _Rows(torch.utils.data.Dataset):
    """What both have in common: an encoded column, and a target from one or several others."""

    def __init__(self, dataset: Any, column: str, kind: str, target: str | Sequence[str]) -> None:
        check_dataset(dataset)
        self.column = Column(dataset, column, kind)
        self.target = target if isinstance(target, str) else tuple(target)
        names = (self.target,) if isinstance(self.target, str) else self.target
        missing = [name for name in names if name not in dataset.features]
        if missing:
            raise ValueError(
                f"the data set has no column {missing[0]!r} for the target; it has "
                f"{', '.join(map(repr, dataset.features))}. Name one, or several, by target="
            )
        plain = dataset.with_format(None)
        self._others = plain.select_columns(list(names))
        self._numbers = {
            name: np.asarray(plain.with_format("numpy", columns=[name])[:][name])
            for name in names
            if _is_integer(dataset.features[name])
        }

    def __len__(self) -> int:
        return len(self.column)

    def target_of(self, row: int) -> Any:
        """Before target_transform."""
        if isinstance(self.target, str):
            return self._value(self.target, row)
        return tuple(self._value(name, row) for name in self.target)

    def _value(self, name: str, row: int) -> Any:
        if name in self._numbers:
            return int(self._numbers[name][row])
        return self._others[row][name]

    def name(self, row: int) -> str:
        """What to call a sample: the file its row names, where it does."""
        return self.column.path(row)


class HuggingFaceImages(_Rows):
    """Pictures of a Hugging Face data set, as (picture, target).

    Pictures are in RGB, whatever the column's mode. Their encoded bytes come from the data set's
    Arrow table, or from the files its rows name; select(), shuffle(), filter() and splits are
    respected.

    Args:
        dataset: a datasets.Dataset (rows by number, not streamed).
        transform: from PIL image (RGB) to what the model takes.
        target_transform: from the target's value to the target.
        image: column of Image features.
        target: column, or several for a tuple of their values: class numbers as int, others as
            the data set gives them.

    Raises:
        TypeError: it is no datasets.Dataset.
        ValueError: a column that does not exist or holds no images; or it has a transform of its
            own.

    Attributes:
        column: the encoded pictures.
    """

    def __init__(
        self,
        dataset: Any,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        image: str = "image",
        target: str | Sequence[str] = "label",
    ) -> None:
        super().__init__(dataset, image, "Image", target)
        self.transform = transform
        self.target_transform = target_transform
        self._share: dict[tuple[bytes, ...], float] = {}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """(picture, target), transformed. Errors name index, and the row's file if it has one."""
        row = range(len(self))[index]  # negative ones count from the end
        try:
            picture = open_item(self.column.read(row, row)[0])
            target = self.target_of(row)
        except Exception as error:
            raise item_error(error, row, self.name(row)) from error
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, target if self.target_transform is None else self.target_transform(target)

    def share_of(self, begins: tuple[bytes, ...]) -> float:
        """Share of pictures that begin with one of these bytes, of some rows."""
        if begins not in self._share:
            rows = range(0, len(self), max(1, len(self) // _SNIFFED))
            found = sum(1 for row in rows if self._head(row).startswith(begins))
            self._share[begins] = found / max(1, len(rows))
        return self._share[begins]

    def _head(self, row: int) -> bytes:
        try:
            return self.column.read(row, row)[0][:12]
        except Exception:  # it fails when its turn comes
            return b""

    def __repr__(self) -> str:
        return f"coordl.HuggingFaceImages({len(self)} pictures, column {self.column.name!r})"


class HuggingFaceAudio(_Rows):
    """Audio of a Hugging Face data set, as (waveform, sample rate, target): see AudioFolder, which
    has the same arguments.

    Args:
        audio: column of Audio features; its sampling_rate is not looked at, `sample_rate` is.
        target: as of HuggingFaceImages.

    Raises:
        TypeError, ValueError: as HuggingFaceImages.
        ImportError: soundfile, or for sample_rate= soxr, is not installed.
    """

    def __init__(
        self,
        dataset: Any,
        transform: Callable[[torch.Tensor], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        audio: str = "audio",
        target: str | Sequence[str] = "label",
        seconds: float | None = None,
        crop: Place = "random",
        sample_rate: int | None = None,
        mono: bool = True,
    ) -> None:
        self.cut = cut_of(seconds, crop, sample_rate, mono)
        super().__init__(dataset, audio, "Audio", target)
        self.transform = transform
        self.target_transform = target_transform

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        """(waveform, sample rate, target), transformed. Errors name index and file."""
        return self.sample(range(len(self))[index], int(index))

    def sample(self, row: int, index: int, read: Read | None = None) -> tuple[Any, int, Any]:
        """Sample `row`, called `index` in errors; its encoded bytes from `read`, if given."""
        try:
            data = self.column.read(row, index)[0] if read is None else read(row)
            with HeldFile(data, self.name(row)) as file:
                samples, rate = read_clip(file, self.cut, below)
            target = self.target_of(row)
        except Exception as error:
            raise item_error(error, index, self.name(row)) from error
        waveform: Any = torch.from_numpy(samples)
        if self.transform is not None:
            waveform = self.transform(waveform)
        return (
            waveform,
            rate,
            target if self.target_transform is None else self.target_transform(target),
        )

    def __repr__(self) -> str:
        return f"coordl.HuggingFaceAudio({len(self)} recordings, column {self.column.name!r})"


def _is_integer(feature: Any) -> bool:
    """Of class numbers, or plain integers."""
    plain = type(feature).__name__ in ("ClassLabel", "Value")
    return plain and str(feature.dtype).startswith(("int", "uint"))
