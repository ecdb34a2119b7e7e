"""Pieces of the page as HTML: bars, ladders, cards. All text is escaped here, once."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dsanalyzer.predict.model import effective_cache
from dsanalyzer.report.document import Bound, Epoch, Interval, Result, Scenario, Steady, WhatIf
from dsanalyzer.report.evidence import table
from dsanalyzer.report.units import (
    figure,
    percent,
    rate,
    rate_range,
    seconds,
    size,
    times,
)
from dsanalyzer.report.verdict import (
    BOUND_WORDS,
    POLICY_WORDS,
    delivery_of,
    inconclusive,
    rate_unit_of,
    steady_read_share,
    steady_storage_bytes,
    wait_share,
)

_PER = {"hour": "an hour", "month": "a month", "once": "once"}
PARTS = (
    ("compute", "compute_s", "Compute"),
    ("delivery", "delivery_s", "Delivery"),
    ("prep", "prep_stall_s", "Prep stall"),
    ("fetch", "fetch_stall_s", "Fetch stall"),
)


def parts_of(times: Epoch | Steady) -> list[tuple[str, str, str]]:
    """(css class, key, words) of the parts of an epoch that were measured."""
    return [part for part in PARTS if part[0] != "delivery" or delivery_of(times)]


def section(title: str, why: str, body: str, kind: str = "") -> str:
    """A card of the page; `body` is HTML, the rest text."""
    return (
        f'<section class="{kind}"><h2>{escape(title)}</h2><p class="why">{escape(why)}</p>'
        f"{body}</section>"
    )


def tiles(result: Result) -> str:
    """The four figures one looks for first."""
    steady = result["steady"]
    wait = wait_share(result)
    read = steady_storage_bytes(result)
    share = steady_read_share(result)
    doubt = "of each epoch – inconclusive" if inconclusive(result) else "of each epoch, for data"
    shown = [
        ("Epoch time", seconds(steady["time_s"]["value"]), "after the first epoch"),
        (
            "Speed, samples/s",
            figure(steady["speed"]["value"]),
            f"{rate_range(steady['speed'])}, bound by {BOUND_WORDS[steady['bound_by']]}",
        ),
        ("GPU waits", percent(wait["value"]), doubt),
        (
            "Read from storage",
            size(read) if read is not None else "–",
            f"per epoch, {percent(share)} of the data" if share is not None else "not measured",
        ),
    ]
    cells = "".join(
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<span>{escape(more)}</span></div>"
        for name, value, more in shown
    )
    return f'<div class="tiles">{cells}</div>'


def stacked_bars(rows: Sequence[tuple[str, str, Epoch | Steady]]) -> str:
    """Stacked bars on one scale; a row is (label, css class, times)."""
    longest = max((row["time_s"]["value"] for _, _, row in rows), default=0.0) or 1.0
    return '<div class="bars">' + "".join(_bar(*row, longest) for row in rows) + "</div>"


def _bar(name: str, kind: str, row: Epoch | Steady, longest: float) -> str:
    whole = row["time_s"]["value"]
    pieces, told = [], []
    for part, key, words in parts_of(row):
        value = max(0.0, row[key]["value"])  # type: ignore[literal-required]
        share = value / whole if whole > 0 else 0.0
        told.append(f"{words.lower()} {seconds(value)}, {percent(share)}")
        if share < 0.002:
            continue
        width = value / longest * 100
        text = percent(share) if width >= 9 else ""  # a label that would not fit is left out
        title = escape(f"{words} {seconds(value)}")
        pieces.append(
            f'<i class="{part}" style="width:{width:.2f}%" title="{title}">{escape(text)}</i>'
        )
    return (
        f'<div class="bar {kind}"><span class="name">{escape(name)}</span>'
        f'<span class="time">{escape(seconds(whole))}</span>'
        f'<div class="stack" role="img" aria-label="{escape("; ".join(told))}">'
        f"{''.join(pieces)}</div></div>"
    )


def epoch_rows(result: Result) -> list[tuple[str, str, Epoch | Steady]]:
    """The measured epochs, the first set apart, and the steady epoch last."""
    rows: list[tuple[str, str, Epoch | Steady]] = []
    for epoch in result["epochs"]:
        first = epoch["epoch"] == 0
        rows.append((_capital(epoch["label"]), "apart" if first else "", epoch))
    later = len([e for e in result["epochs"] if e["epoch"] > 0])
    rows.append(("Later epochs, mean", "sum" if later else "", result["steady"]))
    return rows


def part_key(result: Result) -> str:
    """The legend of the bars, with each part's time and interval in the steady epoch."""
    steady = result["steady"]
    whole = steady["time_s"]["value"]
    meaning = {
        "compute": "the GPU works",
        "delivery": "takes ready minibatches from workers",
        "prep": "waits for decoding and augmentation",
        "fetch": "waits for storage",
    }
    cells = []
    for part, key, words in parts_of(steady):
        interval: Interval = steady[key]  # type: ignore[literal-required]
        share = interval["value"] / whole if whole > 0 else 0.0
        doubt = ""
        if steady[key].get("verdict") == "inconclusive":  # type: ignore[literal-required]
            doubt = " – inconclusive"
        low, high = seconds(interval["low"]), seconds(interval["high"])
        cells.append(
            f'<div class="tone-{part}"><b>{words} {escape(percent(share))}{doubt}</b>'
            f"<span>{meaning[part]}</span>"
            f"<span>{escape(seconds(interval['value']))} "
            f"({escape(low)} to {escape(high)})</span></div>"
        )
    return f'<div class="key">{"".join(cells)}</div>'


def part_names(rows: Sequence[tuple[str, str, Epoch | Steady]]) -> str:
    """The legend of these bars, without figures."""
    shown = {part: None for _, _, times in rows for part in parts_of(times)}
    cells = "".join(
        f'<div class="tone-{part[0]}"><b>{part[2]}</b></div>' for part in PARTS if part in shown
    )
    return f'<div class="key">{cells}</div>'


def rate_ladder(result: Result) -> str:
    """G, P and F as bars with the lowest marked, then S and C, which F is made of."""
    rates = result["rates"]
    lowest = rate_unit_of(result["steady"]["bound_by"])
    scale = 1.05 * max((rates[k]["high"] or rates[k]["value"] or 0.0) for k in ("G", "P", "F"))  # type: ignore[literal-required]
    rungs = []
    for letter, name, part in (("G", "GPU", "gpu"), ("P", "Prep", "prep"), ("F", "Fetch", "fetch")):
        rungs.append(_rung(result, letter, name, part, scale, letter == lowest))
    policy, cached = effective_cache(result)
    feeds = f"What F is made of under {POLICY_WORDS[policy]} at {percent(cached)} cached:"
    rungs.append(f'<p class="feeds">{escape(feeds)}</p>')
    for letter, name in (("S", "Storage"), ("C", "Cache")):
        rungs.append(_rung(result, letter, name, "", scale, False))
    return "".join(rungs)


def _rung(result: Result, letter: str, name: str, part: str, scale: float, lowest: bool) -> str:
    own = result["rates"][letter]  # type: ignore[literal-required]
    kind = " lowest" if lowest else ("" if part else " inner")
    mark = "<small>sets the speed</small>" if lowest else ""
    head = (
        f'<div class="rung{kind}" title="{escape(own["how"])}">'
        f'<span class="letter {part}">{letter}</span><span class="name">{name}{mark}</span>'
    )
    if own["value"] is None or scale <= 0:
        return f'{head}<span class="why">not measured: {escape(own["how"])}</span></div>'
    interval: Interval = {
        "value": own["value"],
        "low": own["low"] if own["low"] is not None else own["value"],
        "high": own["high"] if own["high"] is not None else own["value"],
    }
    return head + track(interval, scale, part) + _value(interval) + "</div>"


def _value(interval: Interval) -> str:
    return (
        f'<span class="value">{escape(figure(interval["value"]))}'
        f"<small>{escape(rate_range(interval))}</small></span>"
    )


def track(interval: Interval, scale: float, part: str) -> str:
    """A bar with its interval; an arrow at the end where it goes beyond the scale."""
    share = min(interval["value"] / scale, 1.0) * 100
    if interval["value"] > scale:
        tail = '<span class="beyond" title="beyond the scale">»</span>'
    else:
        low = max(interval["low"], 0.0) / scale * 100
        width = max(min(interval["high"] / scale * 100, 100) - low, 0)
        tail = f'<span class="span" style="left:{low:.2f}%;width:{width:.2f}%"></span>'
        tail = tail if part else ""
    return (
        f'<div class="track"><div class="fill {part}" style="width:{share:.2f}%"></div>{tail}</div>'
    )


def scenario_cards(whatif: WhatIf) -> str:
    """Small multiples: the present state, then each scenario on the same scale, best first."""
    ordered = sorted(whatif["scenarios"], key=lambda s: -s["speedup"])
    if not ordered:
        return '<p class="empty">No scenario was asked for.</p>'
    scale = 1.3 * max(s["speed"]["value"] for s in ordered) or 1.0
    cards = []
    for place, scenario in enumerate(ordered):
        best = " best" if place == 0 and scenario["speedup"] > 1.02 else ""
        told = list(scenario["notes"])
        if (model := scenario.get("model")) is not None and model["shown"] == "simulator":
            told.insert(0, f"simulated; {model['why']}")
        notes = "".join(f'<div class="line">{escape(note)}</div>' for note in told)
        cards.append(
            f'<div class="card{best}"><h3>{escape(scenario["name"])}</h3>'
            f'<div class="times">{escape(times(scenario["speedup"]))}</div>'
            f'<div class="line"><b>{escape(rate(scenario["speed"]["value"]))}</b> '
            f"({escape(rate_range(scenario['speed']))})</div>"
            f'<div class="line">epoch <b>{escape(seconds(scenario["epoch_s"]))}</b>, bound by '
            f"{_chip(scenario['bound_by'])}</div>{_mini(scenario, scale)}<div>{notes}</div></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def fix_table(whatif: WhatIf) -> str:
    """What a price file offers, the best first."""
    fixes = whatif.get("fixes") or []
    if not fixes:
        return '<p class="empty">Nothing the price file offers makes it faster.</p>'
    heads = ["change", "price", "samples/s", "speedup", "epoch", "cost of an epoch", "bound by"]
    rows = [
        [
            fix["name"],
            f"{fix['price']:.4g} {fix['currency']} {_PER[fix['per']]}",
            figure(fix["speed"]["value"]),
            times(fix["speedup"]),
            seconds(fix["epoch_s"]),
            "–" if fix["cost_per_epoch"] is None else f"{fix['cost_per_epoch']:.3g}",
            BOUND_WORDS[fix["bound_by"]],
        ]
        for fix in fixes
    ]
    return table(heads, rows, text_columns=1)


def _chip(bound: Bound) -> str:
    return f'<span class="chip {bound}">{BOUND_WORDS[bound]}</span>'


def _mini(scenario: Scenario, scale: float) -> str:
    cells = []
    for letter, part in (("G", "gpu"), ("P", "prep"), ("F", "fetch")):
        value = scenario["rates"][letter]  # type: ignore[literal-required]
        if value is None:
            continue
        dim = "" if part == scenario["bound_by"] else " dim"
        width = min(value / scale, 1.0) * 100
        cells.append(
            f'<b>{letter}</b><div class="track"><div class="fill {part}{dim}" '
            f'style="width:{width:.2f}%"></div></div><span class="num">{figure(value)}</span>'
        )
    return f'<div class="mini">{"".join(cells)}</div>'


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
