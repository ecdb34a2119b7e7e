"""Classes of recordings: M5 (Dai et al., ICASSP 2017) over four seconds of waveform at 8 kHz."""

from __future__ import annotations

import random
from typing import Any

from dsanalyzer.workloads.workload import Samples, Workload, installed

RATE = 8_000  # samples a second
LENGTH = 4 * RATE
CLASSES = 100


def why_not(model: str, emulated: bool) -> str:
    """Recordings are decoded, whatever trains on them."""
    missing = [name for name in ("soundfile", "soxr") if installed(name) is None]
    if not missing:
        return ""
    return (
        f"{model} wants {' and '.join(missing)} to decode recordings: pip install "
        "'data-stall-toolkit[audio]'"
    )


class Recordings:
    """A map-style data set of (1, 32000) float32 tensors, a random part each, and class numbers."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import numpy as np
        import soundfile  # type: ignore[import-untyped]
        import soxr  # type: ignore[import-untyped]
        import torch

        path, label = self.samples[index]
        with open(path, "rb") as file, soundfile.SoundFile(file) as sound:
            wanted = LENGTH * sound.samplerate // RATE
            sound.seek(random.randint(0, max(0, sound.frames - wanted)))
            wave = sound.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
            wave = soxr.resample(wave, sound.samplerate, RATE)[:LENGTH]
        wave = np.pad(wave, (0, LENGTH - len(wave)))
        return torch.from_numpy(wave.astype(np.float32))[None], label


def build(model: str) -> Any:
    """M5 as published: four convolutions with pooling, mean over time, one layer."""
    from torch import nn

    layers: list[Any] = []
    for before, after, width, stride in ((1, 128, 80, 4), (128, 128, 3, 1), (128, 256, 3, 1),
                                         (256, 512, 3, 1)):  # fmt: skip
        layers += [nn.Conv1d(before, after, width, stride), nn.BatchNorm1d(after), nn.ReLU()]
        layers += [nn.MaxPool1d(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(512, CLASSES))


def loss(net: Any, batch: Any) -> Any:
    """Cross entropy of (waves, labels)."""
    import torch

    waves, labels = batch
    return torch.nn.functional.cross_entropy(net(waves), labels % CLASSES)


AUDIO = Workload(
    "recordings", (".wav", ".flac", ".ogg", ".mp3"), ("m5",), Recordings, build, loss, why_not
)
