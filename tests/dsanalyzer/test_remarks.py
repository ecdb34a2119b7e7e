"""Remarks beside the figures of a result."""

from dsanalyzer import result
from dsanalyzer.report import units


def epoch(low, value, high):
    return {"time_s": {"low": low, "value": value, "high": high}}


def test_a_first_epoch_that_is_surely_shorter_than_later_ones_is_remarked_upon():
    (remark,) = result._first_epoch_shorter([epoch(3.9, 4.1, 4.3)], epoch(4.8, 5.0, 5.2))
    assert "shorter than the later ones (4.1 s against 5 s)" in remark.replace(units.NBSP, " ")

    assert result._first_epoch_shorter([epoch(3.9, 4.1, 4.9)], epoch(4.8, 5.0, 5.2)) == []
    assert result._first_epoch_shorter([epoch(9.0, 9.5, 9.9)], epoch(4.8, 5.0, 5.2)) == []


def test_shares_in_checks_are_written_as_everywhere_else():
    assert units.exact_percent(0.98712).replace(units.NBSP, " ") == "98.7 %"
    assert units.exact_percent(0.00021, 2).replace(units.NBSP, " ") == "0.02 %"
