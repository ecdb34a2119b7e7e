"""The arithmetic of before, after and predicted."""

from __future__ import annotations

import pytest

from dsanalyzer.report.comparison import Comparison, pick_scenario, prediction_doubts


def scenario(speed: float) -> dict:
    return {"name": "x", "speed": {"value": speed, "low": speed * 0.9, "high": speed * 1.1}}


def test_the_error_is_predicted_over_measured_less_one(result, after):
    measured = after["steady"]["speed"]["value"]
    assert Comparison(result, after, scenario(measured * 1.08)).prediction_error == pytest.approx(
        0.08
    )
    assert Comparison(result, after, scenario(measured * 0.9)).prediction_error == pytest.approx(
        -0.1
    )
    assert Comparison(result, after).prediction_error is None


def test_growth_and_speedup_are_those_of_the_steady_epoch(result, after):
    pair = Comparison(result, after)
    one, two = (r["steady"]["time_s"]["value"] for r in (result, after))
    assert pair.epoch_growth == pytest.approx(two / one - 1)
    assert pair.speedup == pytest.approx(one / two)
    assert Comparison(result, result).epoch_growth == pytest.approx(0)


def test_growth_is_per_sample_where_the_data_sets_differ(make_result):
    pair = Comparison(make_result(samples=2400), make_result(samples=4800))
    assert pair.epoch_growth == pytest.approx(0)
    assert any("samples in the data set" in text for text in pair.differences())


def test_the_only_scenario_is_taken_without_a_name(whatif):
    with pytest.raises(ValueError, match=r"holds 4 scenarios.*'loader coordl'.*\n.*--scenario"):
        pick_scenario(whatif, None)
    with pytest.raises(ValueError, match="no scenario 'coordl'"):
        pick_scenario(whatif, "coordl")
    assert pick_scenario(whatif, "loader coordl")["name"] == "loader coordl"
    whatif["scenarios"] = whatif["scenarios"][:1]
    assert pick_scenario(whatif, None)["name"] == "4 cores"


def test_a_prediction_written_before_the_second_run_is_not_doubted(whatif, result, after):
    assert prediction_doubts(whatif, result, after) == []


def test_a_prediction_written_after_the_fact_is_doubted(whatif, result, after, edited):
    late = edited(whatif, "created", "2026-11-22T19:00:00+01:00")  # an hour east of the others
    assert "after the second result" in prediction_doubts(late, result, after)[0]
    early = edited(whatif, "created", "2026-11-22T18:05:00+01:00")  # 17:05 there, so before 17:09
    assert prediction_doubts(early, result, after) == []


def test_a_prediction_from_another_result_is_doubted(whatif, make_result, after):
    other = make_result(storage_bytes_per_s=30e6)
    assert "made from another result" in prediction_doubts(whatif, other, after)[0]
