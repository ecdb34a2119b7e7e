"""Delivery is a part of an epoch like the others, where it was measured."""

from __future__ import annotations

import copy

from dsanalyzer.report import page, terminal
from dsanalyzer.report.comparison import Comparison


def delivered(result, share=0.05):
    found = copy.deepcopy(result)
    for times in (*found["epochs"], found["steady"]):
        value = share * times["time_s"]["value"]
        times["delivery_s"] = {"value": value, "low": 0.9 * value, "high": 1.1 * value}
    return found


def test_a_terminal_shows_its_bar(result, printed):
    shown = printed(terminal.summary, delivered(result))
    (row,) = (line for line in shown.splitlines() if "▒▒ delivery" in line)
    assert "5 %" in row
    assert shown.count("▒") > 2  # in the bars above

    assert "delivery" not in printed(terminal.summary, result)
    assert "delivery" not in printed(terminal.summary, delivered(result, 0.0))


def test_a_page_shows_its_bar(result, tmp_path):
    written = page.write_page(delivered(result), tmp_path / "r.html").read_text()
    assert '<i class="delivery"' in written and "takes ready minibatches from workers" in written

    without = page.write_page(result, tmp_path / "without.html").read_text()
    assert '<i class="delivery"' not in without and 'tone-delivery"' not in without


def test_a_comparison_has_its_row_where_either_side_measured_it(result, after):
    rows = {row.name: row for row in Comparison(delivered(result), after).rows()}
    assert rows["delivery"].after == "0\u00a0s"
    assert "delivery" not in {row.name for row in Comparison(result, after).rows()}
