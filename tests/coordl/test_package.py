"""The package: what it exports, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import coordl
from coordl import _native


def test_exported_names() -> None:
    assert sorted(coordl.__all__) == [
        "AudioFolder", "CacheError", "CocoDetection", "CoordlError", "DataLoader",
        "EvaluationSampler", "GroupError", "HuggingFaceAudio", "HuggingFaceImages", "ImageFolder",
        "ImageList", "ItemError", "JobGroup", "MinIOCache", "PackedDataError", "PackedFolder",
        "SKIP", "StateError", "TarShardError", "TarShards", "collate_detections", "transforms",
    ]  # fmt: skip
    assert all(getattr(coordl, name) is not None for name in coordl.__all__)
    assert set(coordl.__all__) <= set(dir(coordl))


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Dataloader'"):
        coordl.Dataloader  # noqa: B018


@pytest.mark.parametrize(
    ("script", "absent"),
    [
        ("import coordl", ["torch", "numpy", "PIL", "torchvision", "pandas"]),
        ("from coordl import DataLoader", ["PIL", "torchvision", "pandas"]),
    ],
)
def test_importing_is_light(script: str, absent: list[str]) -> None:
    code = f"{script}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_stub_is_what_the_extension_has() -> None:
    stubgen = pytest.importorskip("nanobind.stubgen")
    generator = stubgen.StubGen(_native)
    generator.put(_native)
    written = Path(coordl.__file__).with_name("_native.pyi").read_text()
    assert generator.get() == written, "python -m nanobind.stubgen -m coordl._native -o ..."
