"""A few steps from close: spans of the loop and of workers, clipped to them."""

import copy

import pytest

from dsanalyzer.report import page
from dsanalyzer.report.charts import timeline_chart
from dsanalyzer.report.timeline import STEPS, spans


def a_pass(phase, begin_s, steps=40):
    """A step a second, a quarter of it waiting."""
    return {
        "op": "pass",
        "phase": phase,
        "round": 0,
        "at_s": [begin_s + n for n in range(steps)],
        "waits_s": [0.25] * steps,
        "steps_s": [1.0] * steps,
    }


def loaded(at_s, worker=0, wall_s=2.0, collate_s=0.5):
    return {
        "op": "loaded",
        "rank": 0,
        "worker": worker,
        "at_s": at_s,
        "wall_s": wall_s,
        "collate_s": collate_s,
        "collate_at_s": at_s + wall_s - collate_s,
    }


def test_the_middle_of_the_last_pass_is_shown_and_nothing_outside():
    timeline = [
        a_pass("prep", 0),
        a_pass("prep", 100),
        *(loaded(100 + 2 * n, worker=n % 2) for n in range(20)),
        loaded(113.0, worker=3),  # ends in the window, which begins at 114
    ]
    found = spans([("rates", timeline)])

    loop = [one for one in found if one["track"] == "training loop"]
    assert len(loop) == 2 * STEPS and {one["phase"] for one in found} == {"prep"}
    assert [one["what"] for one in loop[:2]] == ["wait", "step"]
    assert loop[0]["begin_s"] == 0 and loop[0]["lasts_s"] == pytest.approx(0.25)
    assert all(one["begin_s"] >= 0 and one["begin_s"] + one["lasts_s"] <= STEPS for one in found)
    (late, collated) = [one for one in found if one["track"] == "worker 3"]
    assert (late["what"], late["begin_s"], late["lasts_s"]) == ("samples", 0, pytest.approx(0.5))
    assert (collated["what"], collated["lasts_s"]) == ("collate", pytest.approx(0.5))


def test_short_passes_and_loaders_without_workers_are_shown_as_far_as_they_go():
    assert spans([("rates", [a_pass("prep", 0, steps=1)])]) == []
    found = spans([("rates", [a_pass("prep", 0, steps=3)]), ("fetch", [a_pass("fetch", 9)])])
    assert {one["track"] for one in found} == {"training loop"}
    assert len([one for one in found if one["phase"] == "prep"]) == 4


def test_a_page_has_a_chart_of_each_phase_that_was_seen(result, tmp_path):
    assert timeline_chart(result, "prep") is None
    seen = copy.deepcopy(result)
    seen["timeline"] = spans([("rates", [a_pass("prep", 0), loaded(15.0)])])

    chart = timeline_chart(seen, "prep")
    assert [trace["name"] for trace in chart["data"]] == ["wait", "step", "samples", "collate"]
    assert chart["layout"]["yaxis"]["categoryarray"] == ["worker 0", "training loop"]
    written = page.write_page(seen, tmp_path / "r.html").read_text()
    assert "A few steps from close: prep" in written and 'id="prep-timeline"' in written
    assert "A few steps from close: fetch" not in written
