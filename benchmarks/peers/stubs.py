"""Empty CUDA libraries that let CUDA-built wheels import beside CPU torch.

torchvision's and torchcodec's PyPI wheels need libcudart, libc10_cuda and libtorch_cuda to load,
also for what runs on the CPU. `build` compiles libraries that define every symbol asked for and do
nothing; `load_stubs` loads them first. What runs on the CPU is the wheels' own code.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import torch

FOLDER = Path(sys.prefix) / "stubs"
WHEEL_LIBRARIES = ("torchvision/_C.so", "torchvision/image.so", "torchcodec/libtorchcodec_image.so")
_CUDART = "libcudart.so.13"
_loaded: list[ctypes.CDLL] = []


def load_stubs() -> bool:
    """Loads the stub libraries of this environment. False where it has none."""
    if not _loaded:
        _loaded.extend(
            ctypes.CDLL(str(f), ctypes.RTLD_GLOBAL) for f in sorted(FOLDER.glob("*.so*"))
        )
    return bool(_loaded)


def import_torchvision() -> None:
    """Imports torchvision; without stubs, all of it but torchvision.io and the compiled operators.

    On import, torchvision declares the shapes of its operators nms and qnms: they must exist.
    """
    if not load_stubs() and "torchvision" not in sys.modules:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _loaded.append(library)  # type: ignore[arg-type]  # lives as long as the process
    import torchvision  # noqa: F401


def _symbols(library: Path, which: str) -> list[str]:
    command = ["nm", "-D", which, str(library)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split()[-1] for line in listed.splitlines() if line]


def _compile(name: str, symbols: list[str], version: str = "") -> None:
    source = FOLDER / "stub.c"
    lines = [  # an object where C++ has one, else a function that returns nothing
        f"void *{s}[64];" if s.endswith("allocatorE") else f"void *{s}(void) {{ return 0; }}"
        for s in sorted(symbols)
    ]
    source.write_text("\n".join(lines) + "\n")
    command = ["cc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{name}"]
    if version:
        script = FOLDER / "stub.map"
        script.write_text(f"{version} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    subprocess.run([*command, "-o", str(FOLDER / name), str(source)], check=True)


def _wheel_libraries() -> list[Path]:
    """Those that are there; torchvision may lie in .venv, which .venv-peers sees."""
    found = []
    for name in WHEEL_LIBRARIES:
        package, _, file = name.partition("/")
        spec = importlib.util.find_spec(package)
        folders = spec.submodule_search_locations if spec else None
        found += [Path(folder) / file for folder in folders or []]
    return [library for library in found if library.exists()]


def build() -> None:
    """Compiles the stubs for the wheels of this environment. Raises CalledProcessError."""
    FOLDER.mkdir(exist_ok=True)
    libraries = Path(torch.__file__).parent / "lib"
    held = {
        symbol.partition("@")[0]
        for name in ("libtorch_cpu.so", "libc10.so", "libtorch_python.so")
        for symbol in _symbols(libraries / name, "--defined-only")
    }
    wanted = {
        symbol for library in _wheel_libraries() for symbol in _symbols(library, "--undefined-only")
    }
    runtime, torch_cuda = [], []
    for symbol in wanted:
        name, _, version = symbol.partition("@")
        if version == _CUDART:
            runtime.append(name)
        elif not version and name not in held and re.search("cuda|aoti", name, re.IGNORECASE):
            torch_cuda.append(name)
    _compile(_CUDART, runtime, _CUDART)
    _compile("libc10_cuda.so", torch_cuda)
    _compile("libtorch_cuda.so", [])
    _compile("libnvrtc.so.13", [])


if __name__ == "__main__":
    build()
