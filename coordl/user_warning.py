"""Warnings that point at the user's own line, however deep in coordl they arise."""

from __future__ import annotations

import os
import sys
import warnings
from types import FrameType

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn_user(message: str) -> None:
    """UserWarning at the first frame outside this package; once per such line by default."""
    if sys.version_info >= (3, 12):
        warnings.warn(message, UserWarning, skip_file_prefixes=(_OURS,))
    else:
        warnings.warn(message, UserWarning, stacklevel=2 + _frames_of_ours(sys._getframe(1)))


def _frames_of_ours(frame: FrameType | None) -> int:
    count = 0
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        count += 1
        frame = frame.f_back
    return count
