"""A small data set on disk, and the command line as a user runs it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dsanalyzer.measure import residency

JOBS = Path(__file__).parent / "jobs"


@pytest.fixture(scope="session")
def pictures(photos, tmp_path_factory) -> Path:
    """320 crops of real photographs in two class folders."""
    root = tmp_path_factory.mktemp("pictures")
    rng = random.Random(0)
    sources = [Image.open(path).convert("RGB") for path in photos]
    for number in range(320):
        image = sources[number % len(sources)]
        width, height = image.width * 2 // 3, image.height * 2 // 3
        left, top = rng.randrange(image.width - width), rng.randrange(image.height - height)
        folder = root / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        crop = image.crop((left, top, left + width, top + height)).resize((320, 240))
        crop.save(folder / f"{number:04}.jpg", quality=95)
    os.sync()
    return root


@pytest.fixture(scope="session")
def on_disk(pictures) -> Path:
    """`pictures`, where their pages can be evicted."""
    some = str(next(pictures.glob("*/*.jpg")))
    residency.evict(some)
    if residency.residency([some]).resident_pages:
        pytest.skip("the temporary folder keeps its pages (tmpfs); no cold phase can be had on it")
    return pictures


class Cli:
    """Runs `dsanalyzer` in a folder of its own and sees what it leaves behind."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        self._started: list[int] = []

    def start(self, *words: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", "from dsanalyzer.cli import main; main()", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(self.scratch), "COLUMNS": "80"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background may have been started with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._started.append(process.pid)
        return process

    def __call__(self, *words: object) -> subprocess.CompletedProcess:
        process = self.start(*words)
        out, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, errors)

    def job(self, name: str, *words: object) -> list[str]:
        return ["--", sys.executable, str(JOBS / name), *map(str, words)]

    def leftovers(self) -> list[str]:
        """Run directories, control groups and processes that should be gone."""
        root = Path("/sys/fs/cgroup/blkio")
        groups = [root / f"dsanalyzer-{pid}" for pid in self._started]
        left = [str(path) for path in self.scratch.glob("dsanalyzer-*")]
        left += [str(group) for group in groups if group.exists()]
        return left + _processes_with(str(self.scratch))


def _processes_with(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in entry.read_bytes() and int(entry.parent.name) != os.getpid():
                found.append((entry.parent / "cmdline").read_text())
        except OSError:
            continue
    return [command for command in found if command]


@pytest.fixture(scope="module")
def module_cli(tmp_path_factory) -> Iterator[Cli]:
    """For a profile that several tests of a module look at."""
    with tempfile.TemporaryDirectory() as scratch:
        yield Cli(tmp_path_factory.mktemp("once"), Path(scratch))


@pytest.fixture
def cli(tmp_path) -> Iterator[Cli]:
    # Short: torch's workers pass tensors over sockets below TMPDIR, whose addresses hold 107 bytes.
    with tempfile.TemporaryDirectory() as scratch:
        yield Cli(tmp_path, Path(scratch))


@pytest.fixture
def wait_for():
    def wait(condition, seconds: float = 60) -> None:
        """Poll for something another process does; fails loudly when it does not come."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    return wait


@pytest.fixture
def interrupt():
    def send(process: subprocess.Popen, when, number: int = signal.SIGINT) -> tuple[int, str]:
        """Signal `process` once `when(stderr so far)` holds; returns exit code and stderr."""
        seen = ""
        assert process.stderr is not None
        for line in process.stderr:
            seen += line
            if when(seen):
                break
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
        return process.returncode, seen + rest

    return send
