"""Files that fail, shrink or change under the reader: an error, and never in the cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordl import _native

# Iterates once; prints what was raised, what the cache holds and how many samples came.
READER = """
import json, sys, warnings
import torch, coordl
from recipe import train_transform

native = sys.argv[2] == "native"
transform = train_transform() if native else (lambda picture: torch.zeros(3))
data = coordl.ImageFolder(sys.argv[1], transform)
budget = int(sys.argv[3]) if len(sys.argv) > 3 else "200%"
loader = coordl.DataLoader(data, 1, num_workers=2 if native else 0, cache=budget, seed=1,
                           cache_form="original")
raised, samples = [], 0
for _ in range(2):
    batches = iter(loader)
    while True:
        try:
            next(batches)
            samples += 1
        except StopIteration:
            break
        except Exception as error:
            raised.append([isinstance(error, coordl.ItemError), isinstance(error, OSError),
                           getattr(error, "errno", None), str(error)])
            if not native: break
held = loader._local.items.cache.stats()["items"]
print(json.dumps({"raised": raised, "samples": samples, "held": held}))
"""
ROUTES = ["native", "python"]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "failing_reads.so"
    source = Path(__file__).with_name("failing_reads.c")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "the project is built with a C++ compiler; its C side is missing"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(autouse=True)
def arenas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "arenas").mkdir()
    monkeypatch.setenv("COORDL_SHM_DIR", str(tmp_path / "arenas"))
    yield
    assert os.listdir(tmp_path / "arenas") == []


def read(folder: Path, route: str, shim: Path | None, *more: str) -> dict[str, Any]:
    preload = {} if shim is None else {"LD_PRELOAD": str(shim)}
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder), route, *more],
        env={**os.environ, **preload},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "stderr": done.stderr}


def renamed(folder: Path, name: str) -> Path:
    """The folder's last picture under a name the shim knows."""
    last = sorted(folder.rglob("*.jpg"))[-1]
    return last.rename(last.with_name(f"999{name}.jpg"))


@pytest.mark.parametrize("route", ROUTES)
def test_a_storage_error_is_the_samples_os_error(folder: Path, shim: Path, route: str) -> None:
    path = renamed(folder, "eio")
    done = read(folder, route, shim)
    assert done["held"] == 21
    for item_error, os_error, errno, text in done["raised"]:
        assert (item_error, os_error, errno) == (True, True, 5)
        assert f"sample 21: cannot read {path}" in text and "kernel's log" in text
    assert len(done["raised"]) == 2 and done["samples"] == 42


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("what", ["shrinks", "touched"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    folder: Path, shim: Path, route: str, what: str
) -> None:
    path = renamed(folder, what)
    done = read(folder, route, shim)
    first = done["raised"][0]
    assert first[:2] == [True, False]
    assert str(path) in first[3] and "Nothing may write to the data set" in first[3]
    assert done["held"] == 21


@pytest.mark.parametrize("route", ROUTES)
def test_a_file_one_may_not_read_is_a_permission_error(folder: Path, route: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything; tests/coordl/fetch has it as another user")
    renamed(folder, "secret").chmod(0)
    done = read(folder, route, None)
    assert done["raised"][0][:3] == [True, True, 13]
    assert done["held"] == 21


@pytest.mark.parametrize("route", ROUTES)
def test_a_full_tmpfs_in_mid_run_ends_growth_with_a_warning(
    folder: Path, tmp_path: Path, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    size = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a tmpfs here (needs root)")
    try:
        monkeypatch.setenv("COORDL_SHM_DIR", str(small))
        filler = READER.replace(
            "raised, samples = [], 0",
            "raised, samples = [], 0\n"
            "import os\n"
            "next(iter(loader))\n"
            "full = open(os.environ['COORDL_SHM_DIR'] + '/full', 'wb')\n"
            "left = os.statvfs(full.name)\n"
            "os.posix_fallocate(full.fileno(), 0, left.f_bavail * left.f_frsize)\n",
        )
        monkeypatch.setattr(sys.modules[__name__], "READER", filler)
        done = read(folder, route, None, str(min(size, 1 << 20)))
        assert done["raised"] == [] and done["samples"] == 44
        assert done["held"] < 22
        assert "stopped growing" in done["stderr"] and "make it larger" in done["stderr"]
        (small / "full").unlink()
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_file_that_changed_between_epochs_is_a_new_item_on_both_routes(
    folder: Path, photos: list[Path]
) -> None:
    import torch
    from recipe import train_transform

    import coordl

    for transform in (train_transform(), lambda picture: torch.zeros(3)):
        data = coordl.ImageFolder(folder, transform)
        loader = coordl.DataLoader(data, 4, cache=100 << 20)
        for _ in loader:
            pass
        path = Path(data.samples[3][0])
        other = next(p for p in photos if p.read_bytes() != path.read_bytes())
        path.write_bytes(other.read_bytes())
        for _ in loader:
            pass
        epochs = loader.stats()["epochs"]
        assert (epochs[1]["hits"], epochs[1]["misses"]) == (21, 1)
        assert loader._local.items is not None and loader._local.items.cache is not None
        assert loader._local.items.cache.stats()["items"] == 23
        loader._local.items.cache.close()
    assert _native.list_arenas() == []
