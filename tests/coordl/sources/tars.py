"""Tars made in tests, with the standard library's writer."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_tar(
    path: Path, members: Iterable[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if format == tarfile.PAX_FORMAT:
                info.mtime = 1_700_000_000.25  # as WebDataset's writer: an extended header each
            tar.addfile(info, io.BytesIO(data))
    return path
