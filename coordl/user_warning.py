"""Warnings that point at the user's own line, however deep in coordl or in torch they arise."""

from __future__ import annotations

import os
import sys
import warnings
from types import FrameType

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn_user(message: str) -> None:
    """UserWarning at the first frame outside coordl and torch; once per such line by default."""
    between = [_OURS]
    if torch := sys.modules.get("torch"):  # its DataLoader calls ours
        between.append(os.path.dirname(str(torch.__file__)) + os.sep)
    prefixes = tuple(between)
    if sys.version_info >= (3, 12):
        warnings.warn(message, UserWarning, skip_file_prefixes=prefixes)
    else:
        level = 2 + _frames_within(prefixes, sys._getframe(1))
        warnings.warn(message, UserWarning, stacklevel=level)


def _frames_within(prefixes: tuple[str, ...], frame: FrameType | None) -> int:
    count = 0
    while frame is not None and frame.f_code.co_filename.startswith(prefixes):
        count += 1
        frame = frame.f_back
    return count
