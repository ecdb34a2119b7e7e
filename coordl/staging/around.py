"""Collate functions of ours around another, in which workers put theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class AroundCollate:
    """Where `collate` is torch's default, workers replace it by one that collates into slots."""

    collate: Callable[[Any], Any]
