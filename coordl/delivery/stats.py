"""What `DataLoader.stats()` gives: a dictionary that prints as a table."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from coordl.fetch.budget import format_bytes

_SHOWN = 10  # epochs, the last ones: a table is for a look, the dictionary has them all
_HEADINGS = ("epoch", "samples", "bad", "wait", "hits", "remote", "misses", "read", "fetch", "prep")
_REMOTE = _HEADINGS.index("remote")


class Stats(dict[str, Any]):
    """A plain dictionary in all but `print()`."""

    # As something that torch.load takes from a checkpoint, and anybody without coordl.
    def __reduce__(self) -> Any:
        return OrderedDict, (), None, None, iter(self.items())

    def __str__(self) -> str:
        epochs = self["epochs"]
        rows: list[tuple[str, ...]] = [_HEADINGS]
        rows += [_row(f"{epoch['epoch']}", epoch) for epoch in epochs[-_SHOWN:]]
        rows.append(_row("total", self["total"]))
        if not self["total"].get("remote_hits"):  # without other servers there are none
            rows = [row[:_REMOTE] + row[_REMOTE + 1 :] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
        if (earlier := len(epochs) - _SHOWN) > 0:
            lines.insert(1, f"({earlier:,} earlier)")
        shared = [epoch["shared"] for epoch in epochs if epoch["shared"] is not None]
        if shared:
            names = ("prepared", "staged", "alone", "viewed")
            told = (f"{sum(one.get(name, 0) for one in shared):,} {name}" for name in names)
            lines.append(f"group: {', '.join(told)} (samples, all epochs)")
        if self["cache_bytes"] is not None:
            held = f"{format_bytes(self['cache_bytes'])} of {format_bytes(self['cache_budget'])}"
            forms = [f"{items:,} {form}" for form, items in self["cache_forms"].items() if items]
            lines.append(f"cache: {held}" + (f"; {', '.join(forms)}" if forms else ""))
        return "\n".join(lines)


def _row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    bad = figures["skipped"] + figures["replaced"]
    read = figures["storage_bytes"]
    return (
        name,
        f"{figures['samples']:,}",
        f"{bad:,}",
        _seconds(figures["wait_s"]),
        _count(figures["hits"]),
        _count(figures.get("remote_hits")),
        _count(figures["misses"]),
        "–" if read is None else format_bytes(read),
        _seconds(figures["fetch_s"]),
        _seconds(figures["prep_s"]),
    )


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _seconds(time_s: float | None) -> str:
    return "–" if time_s is None else f"{time_s:.2f} s"
