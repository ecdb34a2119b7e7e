"""A part of an audio file as float32 samples: sought, decoded, resampled, and no more than it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Place = Literal["random", "center", "start"]

# Frames, at the lower of both rates, that are resampled on either side of a crop and cut off again:
# further away than a resampler's filter reaches.
_MARGIN = 256


@dataclass(frozen=True)
class Cut:
    """What of a file becomes a sample.

    Attributes:
        seconds: its length; None: the whole file.
        place: where in the file it lies.
        rate: frames per second of the result; None: the file's.
        mono: channels are averaged into one.
    """

    seconds: float | None
    place: Place
    rate: int | None
    mono: bool


def cut_of(seconds: float | None, place: Place, rate: int | None, mono: bool) -> Cut:
    """A Cut of what a user asked for.

    Raises:
        ValueError: a bad argument.
        ImportError: soundfile, or for a rate soxr, is not installed.
    """
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds is a positive length or None, got {seconds!r}")
    if place not in ("random", "center", "start"):
        raise ValueError(f"crop is 'random', 'center' or 'start', got {place!r}")
    if rate is not None and rate < 1:
        raise ValueError(f"sample_rate is in Hz, or None, got {rate!r}")
    library("soundfile")
    if rate is not None:
        library("soxr")
    return Cut(seconds, place, rate, mono)


def library(name: str) -> Any:
    """soundfile or soxr.

    Raises:
        ImportError: it is not installed, or cannot load; says what to install.
    """
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: soundfile without a libsndfile
        raise ImportError(
            f"coordl's audio data sets need {name}, which cannot be imported ({error}). "
            "Install it: pip install 'data-stall-toolkit[audio]'"
        ) from error


def below(count: int) -> int:
    """A number in [0, count) from torch's global generator, which seed= keys."""
    return int(torch.randint(count, ()).item())


def read_clip(file: Any, cut: Cut, below: Callable[[int], int]) -> tuple[NDArray[np.float32], int]:
    """(samples (channels, frames) float32, frames per second) of an opened file.

    The result is what the same part of the whole file, resampled, would be. A file shorter than
    `cut.seconds` ends in zeros.

    Args:
        file: descriptor or binary file object.
        below: a random number in [0, n).

    Raises:
        ValueError: it cannot be decoded, or ends before the length in its header.
    """
    soundfile = library("soundfile")
    try:
        with soundfile.SoundFile(file, closefd=False) as sound:
            return _read(sound, cut, below)
    except soundfile.LibsndfileError as error:  # its text names the object, not the file
        raise ValueError(f"cannot decode the audio: {error.error_string}") from error


def _read(sound: Any, cut: Cut, below: Callable[[int], int]) -> tuple[NDArray[np.float32], int]:
    total, rate = sound.frames, sound.samplerate
    wanted_rate = cut.rate or rate
    shared = math.gcd(rate, wanted_rate)
    # So many frames of the file are exactly so many of the result: crops begin on such a border.
    step, wanted_step = rate // shared, wanted_rate // shared
    begin, count, margin, wanted = 0, total, 0, None
    if cut.seconds is not None:
        wanted = round(cut.seconds * wanted_rate)
        count = min(total, -(-wanted * step // wanted_step))
        begin = step * _chosen(cut.place, (total - count) // step, below)
    if rate != wanted_rate:
        margin = step * math.ceil(_MARGIN * max(1, rate / wanted_rate) / step)
    first, last = max(0, begin - margin), min(total, begin + count + margin)
    samples = _decoded(sound, first, last - first)
    if cut.mono:
        samples = samples.mean(axis=1, keepdims=True, dtype=np.float32)
    if rate != wanted_rate:
        samples = library("soxr").resample(samples, rate, wanted_rate)
    skip = (begin - first) // step * wanted_step
    samples = samples[skip:] if wanted is None else samples[skip : skip + wanted]
    if wanted is not None and len(samples) < wanted:
        samples = np.pad(samples, [(0, wanted - len(samples)), (0, 0)])
    return np.ascontiguousarray(samples.T), wanted_rate


def _chosen(place: Place, places: int, below: Callable[[int], int]) -> int:
    if place == "random":
        return below(places + 1)
    return places // 2 if place == "center" else 0


def _decoded(sound: Any, first: int, count: int) -> NDArray[np.float32]:
    samples: NDArray[np.float32]
    if sound.format == "MP3":
        # Frames need those before them, and libsndfile 1.2 seeks some ms beside the place asked.
        # The length may be an estimate: what there is, is it.
        samples = sound.read(first + count, dtype="float32", always_2d=True)
        return samples[first:]
    if first:
        sound.seek(first)
    samples = sound.read(count, dtype="float32", always_2d=True)
    if len(samples) < count:
        raise ValueError(
            f"the audio ends after {first + len(samples):,} of the {sound.frames:,} frames its "
            "header speaks of: is the file cut short?"
        )
    return samples
