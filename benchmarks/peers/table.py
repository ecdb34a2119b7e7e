"""The result as Markdown."""

from __future__ import annotations

from typing import Any

from . import machine
from .registry import STOCK

HEAD = (
    "| variant | 1 core | 10-90 % | 1 core, malloc raised | 2 cores | 2 cores, malloc raised "
    "| x stock, 1 core | mean levels from Pillow | most | bytes held / JPEG |"
)


def _median(result: dict[str, Any] | None, cores: str) -> str:
    return f"{result[cores]['median']:,.0f}" if result and cores in result else "–"


def _best(result: dict[str, Any], other: dict[str, Any] | None) -> float:
    return max(r["one_core"]["median"] for r in (result, other) if r)


def _marks(result: dict[str, Any]) -> str:
    kernels = result["facts"].get("kernels", "")
    named = f" ({kernels})" if kernels and kernels not in result["label"] else ""
    return named + ("" if result["same_boxes"] else " ¹") + ("" if result["antialias"] else " ²")


def _prep_row(result: dict[str, Any], raised: dict[str, Any] | None, stock: float) -> str:
    one = result["one_core"]
    difference = result.get("difference")
    mean = f"{difference['mean']:.2f}" if difference else "–"
    most = str(difference["max"]) if difference else "–"
    ratio = result["facts"].get("bytes_ratio")
    cells = [
        result["label"] + _marks(result),
        f"{one['median']:,.0f}",
        f"{one['p10']:,.0f}–{one['p90']:,.0f}",
        _median(raised, "one_core"),
        _median(result, "two_cores"),
        _median(raised, "two_cores"),
        f"{_best(result, raised) / stock:.1f}" if stock else "–",
        mean,
        most,
        f"{ratio:.2f}" if ratio else "–",
    ]
    return f"| {' | '.join(cells)} |"


def _cost_row(result: dict[str, Any]) -> str:
    one = result["one_core"]
    low, high = 1e6 / one["p90"], 1e6 / one["p10"]
    return f"| {result['label']} | {1e6 / one['median']:,.0f} | {low:,.0f}–{high:,.0f} |"


def _set(of: dict[str, Any]) -> list[str]:
    first, *others = of["passes"]
    raised = {r["key"]: r for p in others for r in p["results"]}
    prep = [r for r in first["results"] if r["kind"] == "prep"]
    cost = [r for r in first["results"] if r["kind"] == "cost"]
    stock = next((_best(r, raised.get(r["key"])) for r in prep if r["key"] == STOCK), 0.0)
    lines = [
        f"## {of['name']}: {of['photos']} photographs, {of['mean_kb']:.0f} KB and "
        f"{of['mean_mpx']:.2f} Mpx on average",
        "",
        HEAD,
        "|" + "---|" * 10,
        *(_prep_row(r, raised.get(r["key"]), stock) for r in prep),
    ]
    if cost:
        lines += ["", "| once per item | µs, 1 core | 10-90 % |", "|---|---|---|"]
        lines += [_cost_row(r) for r in cost]
    return [*lines, ""]


def markdown(result: dict[str, Any]) -> str:
    """The tables of every picture set, what was left out, and how all was measured."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"Samples/s, median of {result['rounds']} interleaved rounds after one that was dropped; "
        f"seed {result['seed']}; {result['date']}. One core: CPU time of one thread (of the "
        "process where the library has threads of its own). Two cores: two processes, one per CPU, "
        "over wall time. Crops and flips are the same for all. x stock: each at its better malloc "
        "setting.",
        "",
    ]
    for of in result["sets"]:
        lines += _set(of)
    lines += [
        "¹ draws its own crops, from the same distribution.",
        "² its resize has no antialias: downscales differ visibly from Pillow's.",
        "",
    ]
    if result["left_out"]:
        lines += ["## Left out", "", "| variant | why |", "|---|---|"]
        lines += [f"| {key} | {why.replace('|', '/')} |" for key, why in result["left_out"].items()]
        lines += [""]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join([*lines, f"Versions: {versions}.", "", f"Made by `{result['command']}`.", ""])
