"""Audio in class folders: crops at one rate, decoded from the crop's place on.

root/class_a/1.wav
root/class_b/sub/2.flac
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.utils.data

from coordl.errors import item_error
from coordl.fetch.held_file import HeldFile
from coordl.sources.class_folders import find_class_folders
from coordl.sources.clip import Place, below, cut_of, read_clip

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")


class AudioFolder(torch.utils.data.Dataset):
    """Audio files in class folders, as (waveform, sample rate, class number).

    Waveforms are float32 tensors (channels, frames), in [-1, 1] but for what resampling
    overshoots. WAV, FLAC, OGG and MP3 are read with libsndfile, resampled with soxr. A crop is
    sought and only its part decoded (MP3s from the start). Random crops draw from torch's global
    generator: coordl.DataLoader(seed=) keys them by (seed, epoch, index).

    Args:
        root: folder with one folder per class, or its URL, as of ImageFolder; files may lie deeper
            in it.
        transform: from waveform to what the model takes.
        target_transform: from class number to target.
        seconds: length of the crop; shorter files end in zeros. None: the whole file.
        crop: where it lies: "random", "center" or "start".
        sample_rate: of the waveforms, in Hz; None: as the file has it.
        mono: average the channels into one; else they stay as in the file.
        storage_options: for fsspec, as of ImageFolder.

    Raises:
        FileNotFoundError, NotADirectoryError, ItemError: as ImageFolder.
        ImportError: soundfile, or for sample_rate= soxr, is not installed.
        ValueError: a bad argument.

    Attributes:
        classes, class_to_idx, samples, targets, objects: as ImageFolder has them.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[torch.Tensor], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        seconds: float | None = None,
        crop: Place = "random",
        sample_rate: int | None = None,
        mono: bool = True,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self.cut = cut_of(seconds, crop, sample_rate, mono)
        self.root = os.fspath(root)
        self.transform = transform
        self.target_transform = target_transform
        found = find_class_folders(
            self.root, AUDIO_EXTENSIONS, "audio files", "<recording>.wav", storage_options
        )
        self.classes, self.samples, self.objects = found.classes, found.samples, found.objects
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.targets = [target for _, target in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        """(waveform, sample rate, target), transformed. Errors name index and path."""
        return self.sample(index, int(index))

    def sample(
        self, row: int, index: int, read: Callable[[int], bytes | memoryview] | None = None
    ) -> tuple[Any, int, Any]:
        """Sample `row`, called `index` in errors; its file's bytes from `read`, if given."""
        path, target = self.samples[row]
        try:
            if read is None and self.objects is not None:
                read = self._get
            if read is not None:
                with HeldFile(read(row), path) as file:
                    samples, rate = read_clip(file, self.cut, below)
            else:
                with open(path, "rb", buffering=0) as file:
                    samples, rate = read_clip(file.fileno(), self.cut, below)
        except Exception as error:
            raise item_error(error, index, path) from error
        waveform: Any = torch.from_numpy(samples)
        if self.transform is not None:
            waveform = self.transform(waveform)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return waveform, rate, target

    def _get(self, row: int) -> bytes:
        assert self.objects is not None
        return self.objects.get(self.samples[row][0], row)

    def __repr__(self) -> str:
        return f"coordl.AudioFolder({self.root!r}: {len(self)} files, {len(self.classes)} classes)"
