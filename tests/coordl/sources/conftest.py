"""Fixtures of the data sets' tests: arenas of their own, an index folder of their own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordl import _native


@pytest.fixture(autouse=True)
def arenas(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A directory of arenas of its own; empty again after the test."""
    home = tmp_path_factory.mktemp("arenas")
    monkeypatch.setenv("COORDL_SHM_DIR", str(home))
    yield home
    gc.collect()
    _native.reap_arenas()
    assert [f.name for f in home.rglob("*") if f.is_file() and not f.name.endswith(".lock")] == []


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache directory, empty."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home
