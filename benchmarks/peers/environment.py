"""Makes .venv-peers, where the peers live: python -m benchmarks.peers.environment

Beside .venv, whose torch, NumPy and Pillow it sees. Every package is pinned in requirements.txt and
installed without its dependencies (CUDA would be gigabytes). Steps are independent: one that fails
is told, its peer is left out of the benchmark, and the next run tries it again. As root, packages
of the system come by apt-get: FFmpeg for SPDL, libjpeg-turbo for PyTurboJPEG and FFCV, OpenCV's
core for FFCV.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

from .link import PEERS_PYTHON, ROOT

HOME = PEERS_PYTHON.parent.parent
PINS = Path(__file__).parent / "requirements.txt"
SYSTEM = "ffmpeg libturbojpeg0-dev libopencv-core-dev libopencv-imgproc-dev pkg-config"
WHEELS = {
    "OpenCV, simplejpeg, PyTurboJPEG": "opencv-python-headless simplejpeg PyTurboJPEG",
    "torchvision": "torchvision",
    "torchcodec": "torchcodec",
    "kornia-rs": "kornia-rs",
    "SPDL": "spdl-core spdl-io",
    "nvImageCodec": "nvidia-nvimgcodec-cu12",
    "DALI": "nvidia-dali-cuda120 astunparse gast six optree nvtx makefun libcst PyYAML wheel",
    "TensorSocket": "tensorsocket pyzmq tornado",
    "TraceML": "traceml-ai msgspec PyYAML",
    "what FFCV needs": "numba llvmlite terminaltables pytorch-pfn-extras fastargs assertpy tqdm",
}
# FFCV includes all of OpenCV's headers and asks pkg-config for it; it uses core and imgproc.
_OPENCV_HPP = "#pragma once\n#include <opencv2/core.hpp>\n#include <opencv2/imgproc.hpp>\n"
_OPENCV_PC = """Name: opencv
Description: core and imgproc, what FFCV uses
Version: 4
Libs: -lopencv_core -lopencv_imgproc
Cflags: -I{folder} -I/usr/include/opencv4
"""


def _run(command: list[str], **variables: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise RuntimeError((errors or lines or ["no output"])[-1].strip())


def _pip(*arguments: str, **variables: str) -> None:
    _run(
        [str(PEERS_PYTHON), "-m", "pip", "install", "--no-deps", "-c", str(PINS), *arguments],
        **variables,
    )


def _site() -> Path:
    command = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([PEERS_PYTHON, "-c", command], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def _system() -> None:
    if not shutil.which("apt-get") or os.geteuid():
        raise RuntimeError(f"needs root and apt-get; install by hand: {SYSTEM}")
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    _run([*apt, "update", "-q"])
    _run(
        [*apt, "install", "-y", "-q", "--no-install-recommends", *SYSTEM.split()],
        DEBIAN_FRONTEND="noninteractive",
    )


def _venv() -> None:
    if not PEERS_PYTHON.exists():
        _run([sys.executable, "-m", "venv", str(HOME)])
    # A path file in a folder that another path file names is not read: addsitedir reads it.
    shared = sysconfig.get_path("purelib")
    (_site() / "shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")


def _ffcv() -> None:
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder) / "opencv2" / "opencv.hpp"
        header.parent.mkdir()
        header.write_text(_OPENCV_HPP)
        for name in ("opencv.pc", "opencv4.pc"):
            (Path(folder) / name).write_text(_OPENCV_PC.format(folder=folder))
        _pip("ffcv", PKG_CONFIG_PATH=folder)


def _pillow_simd() -> None:
    folder = HOME / "simd"
    if not (folder / "PIL").exists():
        _pip("--no-binary=:all:", "--target", str(folder), "pillow-simd", CC="cc -mavx2")


def _stubs() -> None:
    _run([str(PEERS_PYTHON), "-m", f"{__package__}.stubs"])


def steps() -> dict[str, Callable[[], None]]:
    """What to do, by name, in order."""
    wheels = {name: lambda names=names: _pip(*names.split()) for name, names in WHEELS.items()}
    return {
        "system packages": _system,
        "virtual environment": _venv,
        **wheels,
        "CUDA stubs": _stubs,
        "FFCV": _ffcv,
        "Pillow-SIMD": _pillow_simd,
    }


def set_up() -> dict[str, str]:
    """Runs every step; those that failed, with the reason."""
    failed = {}
    for name, step in steps().items():
        print(f"peers: {name} ... ", end="", file=sys.stderr, flush=True)
        try:
            step()
            print("done", file=sys.stderr)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            failed[name] = str(error)
            print(f"failed: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(1 if set_up() else 0)
