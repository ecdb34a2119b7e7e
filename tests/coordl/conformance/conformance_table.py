"""The table of docs/conformance.md, from the tests' record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NATIVE = "native threads"
OURS = "ours, in torch's processes"
SLOTS = "torch's workers, our slots"
TORCH = "torch's own"
_BEGIN, _END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def write_table(path: Path, areas: Mapping[str, Mapping[str, set[str]]]) -> None:
    """Puts the table between the two marks of the file.

    Raises:
        ValueError: the file has no such marks.
    """
    text = path.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the lines {_BEGIN.strip()!r} and {_END.strip()!r}")
    path.write_text(before + begin + _table(areas) + end + after)


def _table(areas: Mapping[str, Mapping[str, set[str]]]) -> str:
    columns = (NATIVE, OURS, SLOTS, TORCH)
    lines = [
        "| area | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for area in sorted(areas):
        counts = [len(areas[area].get(column, ())) for column in columns]
        if any(counts):
            lines.append(f"| {area} | " + " | ".join(str(n) if n else "–" for n in counts) + " |")
    return "\n".join(lines) + "\n"
