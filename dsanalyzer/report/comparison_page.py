"""The page that holds two results side by side and a prediction against the second.

The same look as page.py; it has no charts, so it needs no plotly and runs no script.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from dsanalyzer.report import evidence, panels
from dsanalyzer.report.comparison import Comparison, headline
from dsanalyzer.report.document import Interval, Result, Scenario
from dsanalyzer.report.page import banner, document, heading, write_whole
from dsanalyzer.report.units import figure, rate_range, signed_percent
from dsanalyzer.report.verdict import command_line, setting


def write_comparison_page(
    before: Result,
    after: Result,
    predicted: Scenario | None,
    path: Path | str,
    doubts: list[str] | None = None,
) -> Path:
    """Writes the comparison to `path` and returns it; an existing file is replaced.

    `doubts` are reasons why the prediction may not be one (comparison.prediction_doubts).
    """
    pair = Comparison(before, after, predicted)
    parts = [heading(after["created"], command_line(after["command"]))]
    parts += [banner("emulated", text) for text in pair.emulations()]
    if different := pair.differences():
        parts.append(banner("not like for like", "; ".join(different), "bad"))
    if doubts:
        parts.append(banner("prediction in doubt", "; ".join(doubts), "bad"))
    parts.append(f"<h1>{escape(headline(pair))}</h1>")
    parts.append(f'<p class="lead">Before: {escape(setting(before))}</p>')
    parts.append(f'<p class="lead">After: {escape(setting(after))}</p>')
    parts.append('<div class="grid" style="margin-top:22px">')
    parts += _sections(pair)
    parts.append("</div>")
    return write_whole(
        Path(path), document(f"dsanalyzer: {headline(pair)}", "\n".join(parts), {}, [])
    )


def _sections(pair: Comparison) -> list[str]:
    rows = []
    for name, result in (("Before", pair.before), ("After", pair.after)):
        first = next((e for e in result["epochs"] if e["epoch"] == 0), None)
        if first is not None:
            rows.append((f"{name}, first epoch", "", first))
    rows = [(n, "apart" if i == len(rows) - 1 else k, r) for i, (n, k, r) in enumerate(rows)]
    later = [
        ("Before, later epochs", "", pair.before["steady"]),
        ("After, later epochs", "", pair.after["steady"]),
    ]
    shown = [
        panels.section(
            "Where an epoch goes",
            "Time per epoch, all on one scale. The first epoch finds the cache cold.",
            panels.stacked_bars([*rows, *later]) + panels.part_names([*rows, *later]),
        ),
        panels.section(
            "Before and after",
            "Epochs after the first.",
            evidence.table(
                ["", "before", "after", "change"],
                [[row.name, row.before, row.after, row.change] for row in pair.rows()],
                text_columns=1,
            ),
            "half" if pair.predicted else "",
        ),
    ]
    if pair.predicted is not None:
        shown.append(_prediction(pair, pair.predicted))
    for name, result in (("Before", pair.before), ("After", pair.after)):
        body = evidence.checks(result) + '<h3 class="sub">Provenance</h3>'
        shown.append(
            panels.section(
                name, "Checks and provenance.", body + evidence.provenance(result), "half"
            )
        )
    return shown


def _prediction(pair: Comparison, predicted: Scenario) -> str:
    speeds: list[tuple[str, str, Interval]] = [
        ("Before", "was", pair.before["steady"]["speed"]),
        ("Predicted", "said", predicted["speed"]),
        ("Measured", "is", pair.after["steady"]["speed"]),
    ]
    scale = 1.05 * max(speed["high"] for _, _, speed in speeds) or 1.0
    rungs = "".join(
        f'<div class="rung"><span class="name">{name}</span>{panels.track(speed, scale, kind)}'
        f'<span class="value">{escape(figure(speed["value"]))}'
        f"<small>{escape(rate_range(speed))}</small></span></div>"
        for name, kind, speed in speeds
    )
    error = pair.prediction_error or 0.0
    inside = predicted["speed"]["low"] <= speeds[2][2]["value"] <= predicted["speed"]["high"]
    verdict = "inside" if inside else "outside"
    return panels.section(
        "Predicted and measured",
        f"Speed in samples/s. Scenario: {predicted['name']}.",
        f'<div class="versus">{rungs}</div><div class="key one"><div class="tone-compute">'
        f"<b>Error {escape(signed_percent(error))}</b><span>predicted over measured, less 1; the "
        f"measured speed lies {verdict} the predicted interval of "
        f"{escape(rate_range(predicted['speed']))}</span></div></div>",
        "half",
    )
