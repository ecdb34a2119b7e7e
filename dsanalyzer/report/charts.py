"""Figures of the page as plain plotly.js dictionaries.

A colour "@name" stands for the page's own --name, put in when the chart is drawn: so that a chart
follows light and dark. A figure is {"data": traces, "layout": layout}.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from dsanalyzer.predict.model import effective_cache, fetch_rate_at, knee
from dsanalyzer.report.document import Pass, Phase, Policy, Result
from dsanalyzer.report.units import figure, percent
from dsanalyzer.report.verdict import POLICY_WORDS
from dsanalyzer.report.workers import workers_knee

Figure = dict[str, Any]

PHASES: tuple[tuple[Phase, str], ...] = (
    ("ingestion", "compute"),
    ("prep", "prep"),
    ("fetch", "fetch"),
)
MOST_POINTS = 1200  # per phase and chart: what a page shows, and a browser draws, at ease
_WAIT_TICKS = {
    0.001: "1 µs", 0.01: "10 µs", 0.1: "0.1 ms", 1: "1 ms", 10: "10 ms", 100: "0.1 s",
    1000: "1 s", 10_000: "10 s", 100_000: "100 s",
}  # fmt: skip


def figures(result: Result) -> dict[str, Figure]:
    """Every chart that the result has the figures for, by the id of its place in the page."""
    drawn = {
        "rate-chart": rate_chart(result),
        "workers-chart": workers_chart(result),
        "wait-chart": wait_chart(result["passes"]),
        "step-chart": step_chart(result["passes"]),
        "prep-timeline": timeline_chart(result, "prep"),
        "fetch-timeline": timeline_chart(result, "fetch"),
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}


def rate_chart(result: Result) -> Figure | None:
    """F over the cached fraction under both policies, with P, G, knees and "you are here".

    None where S or C was not measured.
    """
    rates = result["rates"]
    storage, cache = rates["S"]["value"], rates["C"]["value"]
    if not storage or not cache:
        return None
    limits = {
        letter: value
        for letter, value in (("G", rates["G"]["value"]), ("P", rates["P"]["value"]))
        if value
    }
    own, here = effective_cache(result)
    at = rates["F"]["value"] or fetch_rate_at(own, here, storage, cache)
    top = 1.18 * max(at, *limits.values()) if limits else 1.3 * at
    data: list[dict[str, Any]] = []
    curves: tuple[tuple[Policy, str], ...] = (("never-evict", "solid"), ("lru", "dot"))
    for policy, dash in curves:
        data += _curve(policy, dash, storage, cache, min(limits.values(), default=None))
    data.append(
        {
            "type": "scatter", "mode": "markers", "x": [here], "y": [at],
            "name": f"you are here: {percent(here)} cached, F {figure(at)}",
            "marker": {"size": 14, "color": "@bad", "symbol": "diamond",
                       "line": {"color": "@card", "width": 2}},
            "hovertemplate": f"{POLICY_WORDS[own]}, {percent(here)} cached<br>"
                             f"F {figure(at)} samples/s<extra></extra>",
        }
    )  # fmt: skip
    layout = _layout("cached fraction of the data set", "samples/s")
    layout["xaxis"].update(range=[0, 1.0], tickformat=".0%", tickvals=[0, 0.2, 0.4, 0.6, 0.8, 1.0])
    layout["yaxis"].update(range=[0, top])
    layout["shapes"] = [
        {"type": "line", "x0": 0, "x1": 1, "y0": value, "y1": value, "layer": "between",
         "line": {"color": _limit_colour(letter), "width": 2, "dash": "dash"}}
        for letter, value in limits.items()
    ]  # fmt: skip
    layout["annotations"] = _limit_labels(limits, top)
    return {"data": data, "layout": layout}


def _curve(
    policy: Policy, dash: str, storage: float, cache: float, limit: float | None
) -> list[dict[str, Any]]:
    grid = [i / 200 for i in range(201)]
    name = POLICY_WORDS[policy]
    bend = knee(policy, storage, cache, limit) if limit else None
    if bend is not None:
        name += f" (knee at {percent(bend)})"
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "name": f"F, {name}", "x": grid,
            "y": [_round(fetch_rate_at(policy, x, storage, cache)) for x in grid],
            "line": {"color": "@fetch", "width": 3, "dash": dash},
            "hovertemplate": "%{x:.0%} cached: F %{y:.0f}<extra>"
                             + POLICY_WORDS[policy] + "</extra>",
        }
    ]  # fmt: skip
    if bend is not None:
        traces.append(
            {
                "type": "scatter", "mode": "markers", "x": [bend], "y": [limit],
                "showlegend": False,
                "marker": {"size": 10, "color": "@card", "line": {"color": "@fetch", "width": 2.5}},
                "hovertemplate": f"knee, {name}: more cache buys nothing<extra></extra>",
            }
        )  # fmt: skip
    return traces


def _limit_colour(letter: str) -> str:
    return "@compute" if letter == "G" else "@prep"


def _limit_labels(limits: dict[str, float], top: float) -> list[dict[str, Any]]:
    words = {"G": "GPU", "P": "prep"}
    close = len(limits) == 2 and abs(limits["G"] - limits["P"]) < 0.08 * top
    lower = min(limits, key=lambda letter: limits[letter]) if close else ""
    return [
        {"x": 0.01, "y": value, "xanchor": "left", "showarrow": False,
         "yanchor": "top" if letter == lower else "bottom",
         "text": f"<b>{letter}</b> {words[letter]} {figure(value)}",
         "font": {"color": _limit_colour(letter), "size": 13}}
        for letter, value in limits.items()
    ]  # fmt: skip


def workers_chart(result: Result) -> Figure | None:
    """P by number of workers with its intervals, against G; None without a sweep."""
    swept = result.get("prep_by_workers") or []
    bend = workers_knee(result)
    if bend is None:
        return None
    gpu = result["rates"]["G"]["value"]
    values = [one["value"] for one in swept]
    top = 1.15 * max(*values, gpu or 0.0)
    last = bend == swept[-1]["workers"]
    name = "P, prep" if last else f"P, prep (knee at {bend})"
    data = [
        {
            "type": "scatter", "mode": "lines+markers", "name": name,
            "x": [one["workers"] for one in swept], "y": [_round(value) for value in values],
            "error_y": {"type": "data", "symmetric": False, "color": "@prep",
                        "array": [_round(min(one["high"], top) - one["value"]) for one in swept],
                        "arrayminus": [_round(one["value"] - one["low"]) for one in swept]},
            "line": {"color": "@prep", "width": 3}, "marker": {"size": 8, "color": "@prep"},
            "hovertemplate": "%{x} workers: P %{y:.0f}<extra></extra>",
        }
    ]  # fmt: skip
    layout = _layout("workers", "samples/s")
    layout["xaxis"].update(tickvals=[one["workers"] for one in swept], rangemode="tozero")
    layout["yaxis"].update(range=[0, top])
    if gpu:
        layout["shapes"] = [
            {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": gpu, "y1": gpu,
             "layer": "between", "line": {"color": "@compute", "width": 2, "dash": "dash"}}
        ]  # fmt: skip
        layout["annotations"] = [
            {"x": 0.01, "xref": "paper", "y": gpu, "xanchor": "left", "yanchor": "bottom",
             "showarrow": False, "text": f"<b>G</b> GPU {figure(gpu)}",
             "font": {"color": "@compute", "size": 13}}
        ]  # fmt: skip
    return {"data": data, "layout": layout}


def wait_chart(passes: list[Pass]) -> Figure | None:
    """ECDF of the waits at next() per phase, on a logarithmic time axis; None without waits."""
    data = []
    for phase, colour in PHASES:
        waits = sorted(w for p in passes if p["phase"] == phase for w in p["waits_s"])
        if not waits:
            continue
        chosen = _evenly(list(range(len(waits))), MOST_POINTS // 3)
        data.append(
            {
                "type": "scatter", "mode": "lines", "name": phase,
                # a logarithmic axis has no place for 0: below 1 µs is 1 µs
                "x": [_round(max(waits[i] * 1000, 0.001)) for i in chosen],
                "y": [_round((i + 1) / len(waits)) for i in chosen],
                "line": {"color": f"@{colour}", "width": 2.5, "shape": "hv"},
                "hovertemplate": "%{y:.0%} of waits are at most %{x:.3~g} ms<extra>"
                                 + phase + "</extra>",
            }
        )  # fmt: skip
    if not data:
        return None
    layout = _layout("wait", "share of minibatches")
    ticks = {"tickvals": list(_WAIT_TICKS), "ticktext": list(_WAIT_TICKS.values())}
    layout["xaxis"].update(type="log", **ticks)
    layout["yaxis"].update(range=[0, 1.02], tickformat=".0%", dtick=0.25)
    return {"data": data, "layout": layout}


def step_chart(passes: list[Pass]) -> Figure | None:
    """Step times in the order they ran, a colour per phase, a gap between passes."""
    starts = [0, *accumulate(len(p["steps_s"]) for p in passes)]
    if starts[-1] == 0:
        return None
    data = []
    for phase, colour in PHASES:
        own = [(p, s) for p, s in zip(passes, starts, strict=False) if p["phase"] == phase]
        bucket = max(1, -(-sum(len(p["steps_s"]) for p, _ in own) // MOST_POINTS))
        x: list[float | None] = []
        y: list[float | None] = []
        for one, start in own:
            steps = one["steps_s"]
            for i in range(0, len(steps), bucket):
                # The slowest of a bucket stands for it: the stalls are what one looks for.
                x.append(start + i)
                y.append(_round(max(steps[i : i + bucket]) * 1000))
            x.append(None)
            y.append(None)
        if own:
            data.append(
                {
                    "type": "scatter", "mode": "lines+markers", "name": phase, "x": x, "y": y,
                    "line": {"color": f"@{colour}", "width": 1},
                    "marker": {"color": f"@{colour}", "size": 4},
                    "hovertemplate": "step %{x}: %{y:.4~g} ms<extra>" + phase + "</extra>",
                }
            )  # fmt: skip
    layout = _layout("step, in the order run", "ms")
    layout["yaxis"].update(rangemode="tozero")
    return {"data": data, "layout": layout}


def timeline_chart(result: Result, phase: Phase) -> Figure | None:
    """The training loop and its workers over a few steps, a bar for each span; None without."""
    spans = [one for one in result.get("timeline", ()) if one["phase"] == phase]
    if not spans:
        return None
    colours = {"wait": "bad", "step": "compute", "samples": phase, "collate": "muted"}
    data = []
    for what, colour in colours.items():
        own = [one for one in spans if one["what"] == what]
        if own:
            data.append(
                {
                    "type": "bar", "orientation": "h", "name": what,
                    "y": [one["track"] for one in own],
                    "base": [_round(one["begin_s"] * 1000) for one in own],
                    "x": [_round(one["lasts_s"] * 1000) for one in own],
                    "marker": {"color": f"@{colour}", "line": {"color": "@card", "width": 1}},
                    "hovertemplate": "%{y}: " + what + ", %{x:.3~g} ms<extra></extra>",
                }
            )  # fmt: skip
    layout = _layout("ms", "")
    tracks = list(dict.fromkeys(one["track"] for one in spans))
    layout["yaxis"].update(categoryorder="array", categoryarray=tracks[::-1])
    layout["barmode"] = "overlay"
    return {"data": data, "layout": layout}


def _layout(x_title: str, y_title: str) -> dict[str, Any]:
    axis = {
        "gridcolor": "@rule", "linecolor": "@rule", "zeroline": False, "automargin": True,
        "tickfont": {"color": "@muted"}, "fixedrange": True, "ticklabeloverflow": "allow",
    }  # fmt: skip
    title = {"font": {"color": "@muted", "size": 13}, "standoff": 8}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
                 "size": 13, "color": "@ink"},
        "margin": {"l": 12, "r": 24, "t": 8, "b": 12},
        "xaxis": {**axis, "title": {**title, "text": x_title}},
        "yaxis": {**axis, "title": {**title, "text": y_title}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "@card", "bordercolor": "@rule", "font": {"color": "@ink"}},
    }  # fmt: skip


def _evenly(items: list[int], most: int) -> list[int]:
    """At most `most` of the items at equal distance, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _round(value: float) -> float:
    """Five digits are more than a chart shows, and a third of the file."""
    return float(f"{value:.5g}")
