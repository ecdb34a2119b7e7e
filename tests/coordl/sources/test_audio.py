"""AudioFolder against decoding and resampling whole files; keyed crops; the cache."""

from __future__ import annotations

import builtins
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coordl
from coordl import AudioFolder, ItemError

soundfile = pytest.importorskip("soundfile", reason="needs soundfile (the extra audio)")
soxr = pytest.importorskip("soxr", reason="needs soxr (the extra audio)")

FORMATS = ["wav", "flac", "ogg", "mp3"]
RATES = [16_000, 44_100, 48_000, 22_050]


def sound(rate: int, seconds: float, channels: int, seed: int) -> np.ndarray:
    """A sweep with some noise, (frames, channels): every part of it is told from every other."""
    time = np.arange(round(rate * seconds)) / rate
    draw = np.random.default_rng(seed)
    sweep = 0.4 * np.sin(2 * np.pi * (200 + 900 * time / seconds) * time)
    noise = 0.01 * draw.standard_normal((len(time), channels))
    return (sweep[:, None] * np.linspace(1, 0.5, channels) + noise).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, all formats, four rates, mono and stereo, 1 to 2.5 s."""
    for number in range(8):
        home = tmp_path / "sounds" / "ab"[number % 2] / "deeper"
        home.mkdir(parents=True, exist_ok=True)
        rate = RATES[number // 2]
        data = sound(rate, 1 + number * 0.2, 1 + number % 2, number)
        soundfile.write(home / f"{number}.{FORMATS[number % 4]}", data, rate)
    return tmp_path / "sounds"


def whole(path: str, rate: int | None = None, mono: bool = True) -> tuple[np.ndarray, int]:
    """The slow reference: all of the file decoded, averaged, resampled; (channels, frames)."""
    data, own = soundfile.read(path, dtype="float32", always_2d=True)
    if mono:
        data = data.mean(axis=1, keepdims=True)
    if rate not in (None, own):
        data = soxr.resample(data, own, rate)
    return data.T, rate or own


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal; of MP3s, whose decoder rounds by what came before, to the last bits."""
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= 1e-6


def test_samples_are_those_of_class_folders(folder: Path) -> None:
    data = AudioFolder(folder)
    assert data.classes == ["a", "b"] and data.class_to_idx == {"a": 0, "b": 1}
    assert data.targets == [0] * 4 + [1] * 4 and len(data) == 8
    assert [Path(path).name for path, _ in data.samples[:2]] == ["0.wav", "2.ogg"]
    assert repr(data) == f"coordl.AudioFolder({str(folder)!r}: 8 files, 2 classes)"


@pytest.mark.parametrize("mono", [True, False])
def test_whole_files_are_what_libsndfile_decodes(folder: Path, mono: bool) -> None:
    data = AudioFolder(folder, mono=mono)
    for index, (path, target) in enumerate(data.samples):
        waveform, rate, label = data[index]
        expected, own = whole(path, mono=mono)
        assert waveform.dtype == torch.float32 and (rate, label) == (own, target)
        assert_close(waveform.numpy(), expected)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_whole_files_are_resampled(folder: Path, rate: int) -> None:
    data = AudioFolder(folder, sample_rate=rate)
    for index, (path, _) in enumerate(data.samples):
        waveform, found, _ = data[index]
        expected, _ = whole(path, rate)
        assert found == rate
        assert_close(waveform.numpy(), expected)


@pytest.mark.parametrize("rate", [None, 16_000, 44_100])
@pytest.mark.parametrize("seed", range(3))
def test_a_crop_is_a_part_of_the_whole(folder: Path, rate: int | None, seed: int) -> None:
    data = AudioFolder(folder, seconds=0.3, sample_rate=rate)
    for index, (path, _) in enumerate(data.samples):
        torch.manual_seed(seed)
        waveform, own, _ = data[index]
        expected, _ = whole(path, rate)
        assert waveform.shape == (1, round(0.3 * own))
        at, error = best_place(expected[0], waveform[0].numpy())
        assert error < 1e-3, (path, at, error)


def best_place(signal: np.ndarray, part: np.ndarray) -> tuple[int, float]:
    """Where `part` lies in `signal`, and the largest difference there."""
    size = 1 << (len(signal) + len(part)).bit_length()
    product = np.fft.irfft(np.fft.rfft(signal, size) * np.conj(np.fft.rfft(part, size)), size)[
        : len(signal) - len(part) + 1
    ]
    energy = np.concatenate([[0], np.cumsum(signal.astype(np.float64) ** 2)])
    distance = energy[len(part) :] - energy[: -len(part)] - 2 * product
    at = int(distance.argmin())
    return at, float(np.abs(signal[at : at + len(part)] - part).max())


def test_center_and_start_need_no_luck(folder: Path) -> None:
    path = AudioFolder(folder).samples[0][0]
    expected, rate = whole(path)
    count = rate // 2
    start = (expected.shape[1] - count) // 2
    center = AudioFolder(folder, seconds=0.5, crop="center")[0][0].numpy()
    assert np.array_equal(center, expected[:, start : start + count])
    first = AudioFolder(folder, seconds=0.5, crop="start")[0][0].numpy()
    assert np.array_equal(first, expected[:, :count])


@pytest.mark.parametrize("rate", [None, 8_000])
def test_files_that_are_too_short_end_in_zeros(folder: Path, rate: int | None) -> None:
    data = AudioFolder(folder, seconds=10, sample_rate=rate)
    for index, (path, _) in enumerate(data.samples):
        waveform, own, _ = data[index]
        expected, _ = whole(path, rate)
        count = expected.shape[1]
        assert waveform.shape == (1, 10 * own)
        assert_close(waveform[:, :count].numpy(), expected)
        assert not waveform[:, count:].any()


def test_random_crops_reach_both_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "x.wav", np.arange(20) / 32, 10, subtype="FLOAT")
    data = AudioFolder(tmp_path, seconds=1.6)
    torch.manual_seed(1)
    begins = {round(float(data[0][0][0, 0]) * 32) for _ in range(100)}
    assert begins == {0, 1, 2, 3, 4}


def test_only_the_crops_part_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = soundfile.SoundFile.read

    def counted(self: Any, frames: int, **options: Any) -> Any:
        asked.append(frames)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert AudioFolder(folder).samples[3][0].endswith("6.ogg")
    rate = AudioFolder(folder, seconds=0.1)[3][1]
    AudioFolder(folder, seconds=0.1, sample_rate=16_000)[3]
    assert asked[0] == round(0.1 * rate) and asked[1] < 0.2 * rate


def test_transforms_are_applied(folder: Path) -> None:
    data = AudioFolder(folder, torch.abs, lambda label: label + 10, seconds=0.1)
    waveform, _, label = data[0]
    assert waveform.min() >= 0 and label == 10


# -- in loaders ----------------------------------------------------------------------------------


def batches(loader: Any, epochs: int = 2) -> list[Any]:
    return [batch for _ in range(epochs) for batch in loader]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_stock_loader_takes_it(folder: Path, start: str) -> None:
    data = AudioFolder(folder, seconds=0.25, crop="center", sample_rate=16_000)
    (one,) = torch.utils.data.DataLoader(data, 8, num_workers=1, multiprocessing_context=start)
    assert one[0].shape == (8, 1, 4000) and one[1].tolist() == [16_000] * 8
    assert one[2].tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("cache", [None, "100%", "40%"])
def test_crops_are_keyed_by_seed_epoch_and_index(folder: Path, cache: str | None) -> None:
    data = AudioFolder(folder, seconds=0.25, sample_rate=16_000)

    def loader(workers: int, cache: str | None = None, seed: int = 3) -> coordl.DataLoader:
        return coordl.DataLoader(data, 3, num_workers=workers, seed=seed, cache=cache)

    plain = batches(loader(0))
    assert_same(batches(loader(2, cache)), plain)
    assert_same(batches(loader(0, cache)), plain)
    assert not torch.equal(plain[0][0], plain[3][0])  # another epoch
    assert not torch.equal(plain[0][0], batches(loader(0, seed=4), 1)[0][0])


def test_encoded_bytes_are_served_from_the_cache(folder: Path) -> None:
    data = AudioFolder(folder, seconds=0.25, sample_rate=16_000)
    loader = coordl.DataLoader(data, 3, cache="100%", seed=1)
    assert "audio is decoded in Python (soundfile)" in loader.plan()
    assert "items held as original, then files" in loader.plan()
    batches(loader)
    first, second = loader.stats()["epochs"]
    size = sum(Path(path).stat().st_size for path, _ in data.samples)
    assert (first["misses"], first["storage_bytes"], first["admitted_bytes"]) == (8, size, size)
    assert (second["hits"], second["misses"], second["storage_bytes"]) == (8, 0, 0)


def test_a_subset_is_cached_too(folder: Path) -> None:
    data = AudioFolder(folder, seconds=0.25, crop="start", sample_rate=16_000)
    part = torch.utils.data.Subset(data, [5, -1, 2])
    (one,) = coordl.DataLoader(part, 3, cache="100%")
    assert torch.equal(one[0], torch.stack([data[5][0], data[7][0], data[2][0]]))


def test_prep_native_is_refused_with_the_reason(folder: Path) -> None:
    with pytest.raises(ValueError, match="audio is decoded in Python"):
        coordl.DataLoader(AudioFolder(folder), prep="native")


def test_it_travels_to_other_processes(folder: Path) -> None:
    data = AudioFolder(folder, seconds=0.25, crop="center")
    assert torch.equal(pickle.loads(pickle.dumps(data))[4][0], data[4][0])


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [None, "100%"])
def test_a_bad_file_is_named_with_index_and_path(folder: Path, cache: str | None) -> None:
    data = AudioFolder(folder, seconds=0.25, sample_rate=16_000)
    Path(data.samples[2][0]).write_bytes(b"no audio at all" * 99)
    with pytest.raises(ItemError, match=r"sample 2, .*4\.wav: cannot decode the audio") as caught:
        batches(coordl.DataLoader(data, 1, cache=cache))
    assert caught.value.index == 2 and "object" not in str(caught.value)


def test_a_flac_that_is_cut_short_is_an_error(folder: Path) -> None:
    data = AudioFolder(folder)
    row = next(i for i, (path, _) in enumerate(data.samples) if path.endswith(".flac"))
    path = Path(data.samples[row][0])
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ItemError, match=rf"sample {row}, .*\.flac: (the audio ends|cannot decode)"):
        data[row]


def test_a_missing_file_is_one(folder: Path) -> None:
    data = AudioFolder(folder)
    Path(data.samples[1][0]).unlink()
    with pytest.raises(FileNotFoundError, match="sample 1, "):
        data[1]


def test_a_class_without_audio_is_named(folder: Path) -> None:
    (folder / "c").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No audio files in 1 class folder\(s\) .*: c\."):
        AudioFolder(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "positive length"),
        ({"crop": "middle"}, "crop is 'random'"),
        ({"sample_rate": 0}, "in Hz"),
    ],
)
def test_bad_arguments_are_refused(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioFolder(folder, **options)


def test_without_the_library_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    AudioFolder(folder)
    with pytest.raises(ImportError, match=r"need soxr.*data-stall-toolkit\[audio\]"):
        AudioFolder(folder, sample_rate=16_000)


def test_the_libraries_are_imported_only_where_they_are_used() -> None:
    code = "from coordl import AudioFolder; import sys; print('soundfile' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_read_is_an_open_that_python_sees(folder: Path) -> None:
    data = AudioFolder(folder)
    seen = []
    opened = builtins.open

    def noted(path: Any, *args: Any, **options: Any) -> Any:
        seen.append(path)
        return opened(path, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", noted)
        data[3]
    assert seen == [data.samples[3][0]]
