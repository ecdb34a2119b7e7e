"""Shards by pattern: "train-{00000..00099}.tar" as in WebDataset, "train-*.tar", or a list."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_REMOTE = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*://|pipe:)")


def expand(patterns: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The files that patterns name, in order: braces count up, "*" and "?" sort by name.

    Raises:
        FileNotFoundError: a pattern names no file.
        ValueError: a URL, a bad range, one file twice, or no pattern at all.
    """
    given = [patterns] if isinstance(patterns, str | os.PathLike) else patterns
    paths: list[str] = []
    for pattern in given:
        text = os.fspath(pattern)
        if _REMOTE.match(text):
            raise ValueError(f"{text}: shards are read from local or mounted files, not from URLs")
        for each in [text] if os.path.exists(text) else _braces(text):
            paths += _files(each, text)
    if not paths:
        raise ValueError("no shards were named: give a pattern, as 'train-{00000..00099}.tar'")
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{twice} is named twice: its samples would count double")
    return paths


def _files(path: str, pattern: str) -> list[str]:
    if os.path.exists(path):
        return [path]
    found = sorted(glob.glob(path))
    if not found:
        said = f"There is no file {path!r}"
        raise FileNotFoundError(said + ("." if path == pattern else f", named by {pattern!r}."))
    return found


def _braces(text: str) -> Iterator[str]:
    parts = _BRACES.split(text)  # texts at even places, what braces hold at odd ones
    choices = [
        [part] if place % 2 == 0 else _choices(part, text) for place, part in enumerate(parts)
    ]
    return ("".join(chosen) for chosen in itertools.product(*choices))


def _choices(inside: str, text: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        if ".." in inside:
            raise ValueError(f"{text}: {{{inside}}} is no range of numbers, as {{000..099}}")
        return inside.split(",")
    first, last = int(span[1]), int(span[2])
    if last < first:
        raise ValueError(f"{text}: the range {{{inside}}} counts down")
    width = len(span[1])
    return [f"{number:0{width}}" for number in range(first, last + 1)]
