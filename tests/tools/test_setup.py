"""tools/setup.sh on machines that lack something: it says what, and the one line that helps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


class Machine:
    """A copy of the set-up in a folder with a space in its name, and faked commands before PATH."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.bin = folder / "a tree", folder / "bin"
        for part in ("tools", "native", "coordl", "dsanalyzer"):
            (self.tree / part).mkdir(parents=True)
        self.bin.mkdir()
        for name in ("tools/setup.sh", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.tree / name)

    def fake(self, command: str, script: str) -> None:
        file = self.bin / command
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        python = os.path.realpath(sys.executable)
        return subprocess.run(
            [str(self.tree / "tools/setup.sh"), "demo"],
            env={**os.environ, "PATH": path, "PYTHON": python, **environment},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Debian, not root, without a compiler, with package lists or without."""
    machine = Machine(tmp_path)
    machine.fake("id", "echo 1000")
    machine.fake("sudo", "exit 1")
    machine.fake("apt-get", "exit 99")  # must not be run
    for compiler in ("c++", "g++", "clang++"):
        machine.fake(compiler, "exit 1")
    return machine


def test_missing_compiler_is_one_line_to_run_and_exit_2(machine: Machine) -> None:
    done = machine.setup()

    assert done.returncode == 2
    assert "missing: a C++20 compiler" in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("sudo apt-get ")
    _, packages = line.split("apt-get install -y --no-install-recommends ")
    assert packages.split()[0] == "g++"
    assert set(packages.split()[1:]) <= {"libjpeg-dev", "libdeflate-dev", "libwebp-dev"}
    assert not (machine.tree / ".venv").exists()


def test_missing_jpeg_headers_alone_ask_for_them_alone(machine: Machine) -> None:
    for compiler in ("c++", "g++", "clang++"):
        machine.fake(compiler, '! grep -q "jpeglib.h"')  # compiles all but what includes it

    done = machine.setup()

    assert done.returncode == 2
    assert "missing: libjpeg-turbo's headers." in done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("--no-install-recommends libjpeg-dev")


@pytest.mark.parametrize(
    ("headers", "facts", "packages"),
    [
        ("libdeflate", "libdeflate's headers (for PNG)", "libdeflate-dev"),
        ("webp/demux", "libwebp's headers (for WebP)", "libwebp-dev"),
    ],
)
def test_missing_headers_of_other_formats_are_said_and_setup_goes_on(
    machine: Machine, headers: str, facts: str, packages: str
) -> None:
    for compiler in ("c++", "g++", "clang++"):
        machine.fake(compiler, f'! grep -q "{headers}"')
    foreign_venv(machine)  # where it stops: the step after the packages

    done = machine.setup()

    assert done.returncode == 2
    assert f"going on without {facts}: Pillow decodes such files" in done.stderr
    assert f"install -y --no-install-recommends {packages}\n" in done.stderr
    assert "is not Python 3.11 to 3.13. Move it away" in done.stderr


def test_headers_of_other_formats_that_cannot_be_installed_are_done_without(
    machine: Machine,
) -> None:
    for compiler in ("c++", "g++", "clang++"):
        machine.fake(compiler, '! grep -q "libdeflate"')
    machine.fake("id", "echo 0")
    foreign_venv(machine)

    done = machine.setup()

    assert "setup: installing libdeflate-dev ... failed" in done.stderr
    assert "going on without libdeflate's headers (for PNG)" in done.stderr
    assert "is not Python 3.11 to 3.13. Move it away" in done.stderr


def foreign_venv(machine: Machine) -> Path:
    venv = machine.tree / ".venv/bin"
    venv.mkdir(parents=True)
    (venv / "activate").touch()
    (venv / "python").symlink_to("/bin/false")
    return venv


def test_a_python_named_that_is_none_of_those_is_said(machine: Machine) -> None:
    done = machine.setup(PYTHON="/nowhere/python")

    assert done.returncode == 2
    assert "PYTHON=/nowhere/python is not Python 3.11 to 3.13 here" in done.stderr


def test_a_foreign_venv_of_another_python_is_not_deleted(machine: Machine) -> None:
    for compiler in ("c++", "g++", "clang++"):
        machine.fake(compiler, "cat >/dev/null")
    venv = foreign_venv(machine)

    done = machine.setup()

    assert done.returncode == 2
    assert "is not Python 3.11 to 3.13. Move it away" in done.stderr
    assert (venv / "activate").exists()
