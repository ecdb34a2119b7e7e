"""What makes compute longer beside the stalls, and what a sample's parts take, where measured."""

import copy

import pytest

from dsanalyzer.report import load, page, terminal
from dsanalyzer.report.workers import crowding, part_costs


def crowded(result, share, stall="stall"):
    """`result` whose compute takes `share` of its prep stall longer beside a load."""
    found = copy.deepcopy(result)
    steady = found["steady"]
    prep = steady["prep_stall_s"]
    prep["verdict"] = stall
    prep["value"] = prep["value"] or 1.0
    value = share * prep["value"]
    steady["interference_s"] = {"value": value, "low": 0.9 * value, "high": 1.1 * value}
    steady["load_cores"] = 1.7
    return found


def with_parts(result):
    found = copy.deepcopy(result)
    for one in found["passes"]:
        if one["phase"] in ("prep", "fetch"):
            one["loaded"] = {
                "samples": 100.0,
                "wall_s": 0.5,
                "cpu_s": 0.4,
                "queued_s": 0.0,
                "collate_s": 0.1,
                "parts": [
                    {"name": "Resize", "wall_s": 0.1, "cpu_s": 0.1},
                    {"name": "loader", "wall_s": 0.3, "cpu_s": 0.2},
                ],
            }
    return found


@pytest.mark.parametrize(
    ("share", "verdict", "said"),
    [(0.9, "stall", True), (0.3, "stall", False), (0.9, "none", False), (1.5, "stall", True)],
)
def test_a_prep_stall_that_is_busy_cores_is_called_that(result, printed, share, verdict, said):
    found = crowded(result, share, verdict)

    told = crowding(found)
    assert bool(told) == said
    shown = " ".join(printed(terminal.summary, found).split())
    assert ("More workers would not help" in shown) == said
    assert ("prep stall by CPU contention" in shown) == said
    assert "beside 1.7 cores kept busy" in shown  # the figure itself always


def test_where_it_was_not_measured_nothing_is_said_of_it(result, printed, tmp_path):
    assert crowding(result) is None
    assert "busy cores" not in printed(terminal.summary, result)
    written = page.write_page(result, tmp_path / "r.html").read_text()
    assert "Compute that is not alone" not in written and "What its parts take" not in written


def test_a_page_shows_both_ways_in_which_compute_is_not_alone(result, tmp_path):
    found = crowded(result, 0.9)
    found["steady"]["copy_s"] = {"value": 0.25, "low": 0.2, "high": 0.3}
    written = page.write_page(found, tmp_path / "r.html").read_text()

    assert "Compute that is not alone" in written
    assert "beside 1.7 busy cores" in written and "copies from pinned memory" in written
    assert "More workers would not help" in written


def test_parts_of_a_sample_are_told_the_longest_first(result, printed, tmp_path):
    found = with_parts(result)

    costs = part_costs(found)
    assert list(costs) == ["loader", "Resize"]
    assert costs["loader"].memory_s == pytest.approx(0.003)
    assert costs["loader"].core_s == pytest.approx(0.002)
    assert costs["loader"].storage_s == pytest.approx(0.003)
    shown = " ".join(printed(terminal.summary, found).split())
    assert "of it, longest loader 3.00" in shown
    assert "What its parts take" in page.write_page(found, tmp_path / "r.html").read_text()


def test_the_schema_has_them(result, tmp_path):
    import json

    found = with_parts(crowded(result, 0.9))
    found["steady"]["copy_s"] = {"value": 0.25, "low": 0.2, "high": 0.3}
    (tmp_path / "r.json").write_text(json.dumps(found))
    assert load.load_result(tmp_path / "r.json")["steady"]["load_cores"] == 1.7
