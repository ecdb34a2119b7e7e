"""Filling ahead: all there is room for, with progress; stopped anywhere, what is in stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import coordl
from coordl.cli import app
from coordl.fetch.cache import MinIOCache, cache_name
from coordl.fetch.failure import ItemNotFoundError


@pytest.fixture
def pictures(tmp_path: Path, photos: list[Path]) -> Path:
    root = tmp_path / "pictures"
    for number in range(12):
        home = root / f"class{number % 3}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number % len(photos)], home / f"{number:03}.jpg")
    return root


def total(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*.jpg"))


@pytest.mark.parametrize("form", ["original", "packed", "auto"])
def test_everything_is_read_once_and_told(pictures: Path, form: str) -> None:
    told: list[tuple[int, int]] = []
    with MinIOCache("200%", form=form) as cache:
        done = cache.warm(
            coordl.ImageFolder(pictures), workers=3, tell=lambda *each: told.append(each)
        )
        assert (done.items, done.held, done.failed) == (12, 12, ())
        assert done.read_bytes == total(pictures) == sum(size for _, size in told)
        held = "original" if form == "original" else "packed"
        assert cache.stats()[f"{held}_items"] == 12
        again = cache.warm(coordl.ImageFolder(pictures))
        assert (again.held, again.read_bytes) == (12, 0)


def test_what_does_not_fit_or_is_not_chosen_is_not_even_read(pictures: Path) -> None:
    with MinIOCache("50%", admission="random", form="original") as cache:
        done = cache.warm(coordl.ImageFolder(pictures))
        assert done.read_bytes == cache.stats()["used_bytes"] <= total(pictures) / 2
        assert 0 < done.held < 12


def test_a_subset_and_packed_data_are_warmed_as_well(pictures: Path, tmp_path: Path) -> None:
    import torch

    data = coordl.ImageFolder(pictures)
    with MinIOCache("100%") as cache:
        assert cache.warm(torch.utils.data.Subset(data, [3, 5, 5])).held == 2
    assert CliRunner().invoke(app, ["pack", str(pictures), str(tmp_path / "packed")]).exit_code == 0
    with MinIOCache("100%") as cache:
        assert cache.warm(coordl.PackedFolder(tmp_path / "packed")).held == 12


def test_a_loader_finds_what_was_warmed(pictures: Path) -> None:
    from coordl import transforms as T

    crop = T.Compose([T.RandomResizedCrop(32), T.ToTensor()])
    cache = MinIOCache("100%")
    data = coordl.ImageFolder(pictures, crop)
    cache.warm(data)
    loader = coordl.DataLoader(data, 4, num_workers=1, cache=cache)
    for _ in loader:
        pass
    assert (loader.stats()["total"]["hits"], loader.stats()["total"]["misses"]) == (12, 0)
    del loader
    cache.close()


def test_files_that_cannot_be_read_are_told_one_by_one(pictures: Path) -> None:
    data = coordl.ImageFolder(pictures)
    os.unlink(data.samples[4][0])
    with MinIOCache("100%") as cache:
        done = cache.warm(data)
        assert done.held == 11
        (error,) = done.failed
        assert isinstance(error, ItemNotFoundError) and error.index == 4


def test_other_data_sets_and_no_threads_are_refused(pictures: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be warmed: the data set is a builtins\.list"):
        MinIOCache("1MiB").warm([1, 2])
    with MinIOCache("1MiB") as cache:
        with pytest.raises(ValueError, match="workers=0"):
            cache.warm(coordl.ImageFolder(pictures), workers=0)


def test_an_error_of_tell_stops_it_and_comes_out(pictures: Path) -> None:
    def stop(items: int, size: int) -> None:
        raise KeyboardInterrupt

    with MinIOCache("100%") as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.warm(coordl.ImageFolder(pictures), workers=2, tell=stop)
        assert cache.verify() == []
        assert cache.warm(coordl.ImageFolder(pictures)).held == 12


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["warm", *map(str, arguments)])


def test_the_command_fills_a_disk_that_the_next_process_finds(
    pictures: Path, tmp_path: Path
) -> None:
    done = run(pictures, "--ssd", tmp_path / "ssd")
    assert done.exit_code == 0, done.output
    assert "ssd holds 12 items" in done.stdout and "12 of 12 items of the data" in done.stdout
    again = run(pictures, "--ssd", tmp_path / "ssd")
    assert "12 of 12 items" in again.stdout and "; 0 B were read" in again.stdout


def test_the_command_takes_tars_by_pattern(pictures: Path, tmp_path: Path) -> None:
    for shard, path in enumerate(sorted(pictures.rglob("*.jpg"))[:2]):
        with tarfile.open(tmp_path / f"t-{shard:02}.tar", "w") as tar:
            tar.add(path, "a.jpg")
    done = run(tmp_path / "t-{00..01}.tar", "--ssd", tmp_path / "ssd")
    assert done.exit_code == 0, done.output
    assert "2 of 2 items of the data" in done.stdout
    done = run(tmp_path / "t-{00..02}.tar", "--ssd", tmp_path / "ssd")
    assert done.exit_code == 2 and "t-02.tar', named by" in done.output


def test_the_command_fills_memory_that_stays_until_it_is_cleared(
    pictures: Path, in_process: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    warm = f"from coordl.cli import app; app(['warm', {str(pictures)!r}, '--cache', '200%'])"
    done = in_process(warm)
    assert "12 of 12 items of the data set are held" in done.stdout, done.stderr
    data = coordl.ImageFolder(pictures, coordl.transforms.PILToTensor())
    loader = coordl.DataLoader(data, 1, cache="200%")
    list(loader)
    assert loader.stats()["total"]["misses"] == 0
    name = cache_name(pictures)
    del loader
    clear = in_process(f"from coordl.cli import app; app(['clear', {name!r}, '--force'])")
    assert clear.returncode == 0, clear.stderr


def test_the_command_asks_where_the_cache_shall_be(pictures: Path) -> None:
    done = run(pictures)
    assert done.exit_code == 2
    assert "--cache 65%" in done.stderr and "--ssd DIR" in done.stderr


def test_the_command_tells_what_it_could_not_read(pictures: Path, tmp_path: Path) -> None:
    (pictures / "class0" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    done = run(pictures, "--ssd", tmp_path / "ssd")
    assert done.exit_code == 2
    assert "1 could not be read, first sample" in done.stderr and "gone.jpg" in done.stderr
    assert "12 of 13 items of the data set are held" in done.stdout


def test_ctrl_c_leaves_what_is_in_and_the_command_goes_on(pictures: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import coordl.fetch.warm as w\n"
        "plain, done = w.fetch, []\n"
        "def fetch(*a):\n"
        "    out = plain(*a)\n"
        "    done.append(1)\n"
        "    if len(done) == 5: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return out\n"
        "w.fetch = fetch\n"
        "sys.argv = ['coordl', 'warm', *sys.argv[1:]]\n"
        "from coordl.cli import main\n"
        "main()\n"
    )
    stopped = subprocess.run(
        [sys.executable, "-c", code, pictures, "--ssd", tmp_path / "ssd", "--workers", "1"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert stopped.returncode in (130, -signal.SIGINT), stopped.stderr
    assert "What was admitted by now stays" in stopped.stderr
    after = run(pictures, "--ssd", tmp_path / "ssd")
    assert "12 of 12 items of the data set are held" in after.stdout
