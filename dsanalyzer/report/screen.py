"""Lines on a terminal: wrapped, coloured where it can show colour, ASCII where it must be."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from dsanalyzer.report.units import NBSP, ascii_only

STYLES = {"compute": "green", "delivery": "cyan", "prep": "yellow", "fetch": "blue", "gpu": "green"}
# Told apart without colour: each part of an epoch has a texture of its own.
FILL = {"compute": "█", "delivery": "▒", "prep": "▓", "fetch": "░"}
WIDEST = 110


@dataclass(frozen=True)
class Screen:
    """A console with the width used and its alphabet. Text given to it is never markup."""

    console: Console

    @property
    def width(self) -> int:
        return min(self.console.width, WIDEST)

    def plain(self, text: str) -> str:
        """`text` in the alphabet of this console."""
        return ascii_only(text) if self.console.options.ascii_only else text

    def line(self, *parts: str | tuple[str, str]) -> None:
        """One line of (text, style) parts, cut at the width; the caller sees to it that it fits."""
        text = Text()
        for part in parts:
            words, style = (part, "") if isinstance(part, str) else part
            text.append(self.plain(words).replace(NBSP, " "), style)
        text.rstrip()
        text.truncate(self.width)
        self.console.print(text, soft_wrap=True, highlight=False)

    def blank(self) -> None:
        self.console.print()

    def heading(self, text: str, aside: str = "") -> None:
        self.blank()
        self.line((text, "bold"), (f"  {aside}" if aside else "", "dim"))

    def paragraph(self, text: str, style: str = "", indent: str = "", hang: str = "") -> None:
        """`text` wrapped at the width; figures are not torn from their units."""
        lines = textwrap.wrap(
            self.plain(text) if self.console.options.ascii_only is False else _ascii_wrap(text),
            self.width,
            initial_indent=self.plain(indent),
            subsequent_indent=self.plain(hang or " " * len(self.plain(indent))),
            break_on_hyphens=False,
        )
        for line in lines:
            self.line((line, style))

    def command(self, text: str) -> None:
        """A command to copy: broken with backslashes where it does not fit."""
        rest, indent = text, "  "
        room = self.width - 4
        lines = textwrap.wrap(rest, room, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(lines):
            more = " \\" if number + 1 < len(lines) else ""
            # Not cut, even where one word is wider than the screen: it would no longer run.
            shown = self.plain(indent + line + more)
            self.console.print(Text(shown, "bold"), soft_wrap=True, highlight=False)
            indent = "    "
            room -= 2


def _ascii_wrap(text: str) -> str:
    """ASCII, but with the no-break spaces left for wrapping."""
    return NBSP.join(ascii_only(part) for part in text.split(NBSP))


def bar_cells(values: list[float], scale: float) -> list[int]:
    """Whole cells for stacked `values` at `scale` cells per unit.

    The ends are rounded, not the lengths: equal values stacked alike get equal cells in every bar,
    and the bar's whole length is that of the sum.
    """
    cells, end, total = [], 0, 0.0
    for value in values:
        total += max(0.0, value)
        cells.append(round(total * scale) - end)
        end += cells[-1]
    return cells
