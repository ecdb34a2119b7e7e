"""Quantities as people read them. A no-break space joins a figure to its unit."""

from __future__ import annotations

from dsanalyzer.report.document import Interval

NBSP = "\u00a0"


def percent(share: float) -> str:
    """0.413 -> "41 %"; below 1 % one decimal, so that a small share is not printed as none."""
    return f"{_percent_figure(share)}{NBSP}%"


def exact_percent(share: float, decimals: int = 1) -> str:
    """0.9871 -> "98.7 %": where a check compares at that precision."""
    return f"{share * 100:.{decimals}f}{NBSP}%"


def percent_range(low: float, high: float) -> str:
    """(0.38, 0.44) -> "38–44"; with "to" where a sign would read as a dash."""
    first, last = _percent_figure(low), _percent_figure(high)
    return f"{first} to {last}" if low < 0 or high < 0 else f"{first}–{last}"


def _percent_figure(share: float) -> str:
    value = share * 100
    text = f"{value:.1f}" if 0 < abs(value) < 0.95 else f"{value:.0f}"
    return text.replace("-", "−") if float(text) else "0"


def signed_percent(share: float) -> str:
    """0.034 -> "+3.4 %"."""
    text = f"{share * 100:+.1f}" if abs(share) < 0.1 else f"{share * 100:+.0f}"
    return f"{text.replace('-', '−')}{NBSP}%"


def seconds(value: float) -> str:
    """12.84 -> "12.8 s"; ms below 1 s, minutes from 2 min, hours from 2 h."""
    sign, size = ("−" if value < 0 else ""), abs(value)
    if size < 0.0005:
        return f"0{NBSP}s"
    if size < 0.9995:
        return f"{sign}{size * 1000:.3g}{NBSP}ms"
    if size < 99.95:
        return f"{sign}{size:.3g}{NBSP}s"
    if size < 120:
        return f"{sign}{size:.0f}{NBSP}s"
    if size < 7200:
        return f"{sign}{size / 60:.3g}{NBSP}min"
    return f"{sign}{size / 3600:.3g}{NBSP}h"


def milliseconds(value: float) -> str:
    """0.00317 -> "3.17 ms": of parts that should add up."""
    return f"{value * 1000:.2f}{NBSP}ms"


def size(value: float) -> str:
    """Bytes in decimal units: 189_300_000 -> "189 MB"."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{figure(value)}{NBSP}{units[0]}"


def figure(value: float) -> str:
    """A rate: "4.21", "38.5", "188", "5,000"."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rate(value: float) -> str:
    """Samples per second with their unit."""
    return f"{figure(value)}{NBSP}samples/s"


def rate_range(interval: Interval) -> str:
    return f"{figure(interval['low'])}–{figure(interval['high'])}"


def times(factor: float) -> str:
    """2.834 -> "2.83×", 18.3 -> "18.3×"."""
    return f"{factor:.3g}×" if factor >= 10 else f"{factor:.2f}×"


ASCII = str.maketrans(
    {
        NBSP: " ",
        "–": "-",
        "−": "-",
        "—": "-",
        "×": "x",
        "…": "...",
        "·": "|",
        "→": "->",
        "◀": "<",
        "»": ">",
        "✗": "FAILED",
        "✓": "ok",
        "“": '"',
        "”": '"',
        "’": "'",
        "≤": "<=",
        "≥": ">=",
        "µ": "u",
        "█": "#",
        "▓": "+",
        "▒": "=",
        "░": ".",
        "─": "-",
    }
)


def ascii_only(text: str) -> str:
    """The same in ASCII; what has no counterpart (a path's accents) becomes "?"."""
    return text.translate(ASCII).encode("ascii", "replace").decode()
