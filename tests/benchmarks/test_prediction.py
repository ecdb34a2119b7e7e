"""The benchmark of predictions: its grid, and that predictions are written before the runs."""

import json

import pytest

from benchmarks import prediction
from benchmarks.prediction import Point, change_of, families


def points():
    return [point for family in families().values() for point in family.points]


def test_the_grid_is_as_large_and_as_real_as_promised():
    assert len(points()) >= 60
    assert sum(point.real and point.jobs == 1 for point in points()) >= len(points()) / 3
    for family in families().values():
        names = [point.name for point in family.points]
        assert len(set(names)) == len(names)
        assert family.base not in family.points


def test_every_axis_is_varied():
    for axis in ("cached", "storage", "workers", "gpu", "model", "jobs", "form"):
        assert len({getattr(point, axis) for point in points()}) >= 2, axis


def test_a_point_is_asked_for_as_what_it_changes_of_its_base():
    base = Point(gpu=600)

    change = change_of(base, Point(gpu=900, cached=0.35, storage=60, workers=4))
    assert change.asked == {
        "cached_fraction": 0.35,
        "workers": 4,
        "storage_bytes_per_s": 60e6,
        "gpu_speedup": 1.5,
    }
    assert change_of(base, Point(gpu=600, form="packed")).asked == {
        "loader": "coordl",
        "form": "packed",
        "cached_fraction": 0.5,
    }
    assert change_of(base, base).asked == {}


def prepared(rate, doubt=0.01):
    return {"value": rate, "low": rate * (1 - doubt), "high": rate * (1 + doubt)}


RATES = {"base-0": 700.0, "base-1": 500.0, "base-2": 600.0}


def measured(monkeypatch, tmp_path, created="9999"):
    """A family measured with runs that are made up; each run sees what was on disk before it."""
    seen = []

    def profile(point, folder, output, care):
        found = list(output.parent.glob("predictions.json"))
        seen.append((point, json.loads(found[0].read_text()) if found else None))
        method = "blkio cgroup" if point.cached < 1 else "pacing"
        return {
            "created": created,
            "steady": {"speed": {"value": 110.0}},
            "rates": {"P": prepared(RATES.get(output.stem, 612.0))},
            "options": {"storage_method": method},
            "checks": [{"name": "cold", "ok": False}],
        }

    def predict(basis, change, rates):
        answer = {"shown": "simulator"}
        return {"speed": {"value": 100.0}, "bound_by": "fetch", "model": answer}

    monkeypatch.setattr(prediction, "profile", profile)
    monkeypatch.setattr(prediction, "predict", predict)
    monkeypatch.setattr(prediction.Basis, "of", classmethod(lambda cls, base: base))
    base = Point()
    family = prediction.Family(base, (Point(cached=0.0), Point(cached=1.0), Point(workers=3)))
    rows = list(prediction.measure("small", family, tmp_path, tmp_path))
    return seen, rows


@pytest.fixture
def predicted_then_run(monkeypatch, tmp_path):
    return measured(monkeypatch, tmp_path)


def test_runs_of_before_the_prediction_are_refused(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="older than what predicts it"):
        measured(monkeypatch, tmp_path, created="2026-01-01T00:00:00+00:00")


def test_every_prediction_is_on_disk_before_any_of_the_runs(predicted_then_run):
    seen, rows = predicted_then_run

    bases, runs = seen[: prediction.BASES], seen[prediction.BASES :]
    assert bases == [(Point(), None)] * 3  # the base knows of no prediction
    for point, document in runs:
        assert point.name in document["predictions"] and len(document["predictions"]) == 3
    assert {row["predicted_at"] for row in rows} == {runs[0][1]["created"]}


def test_the_base_is_the_middle_one_by_its_prep_rate(predicted_then_run):
    _, rows = predicted_then_run

    assert [row["prep_alone"] for row in rows] == [pytest.approx(0.02), pytest.approx(0.02), None]


def test_only_a_real_model_under_the_kernels_throttle_counts_as_real(predicted_then_run):
    _, rows = predicted_then_run

    assert [row["real"] for row in rows] == [True, False, True]
    assert rows[0]["error"] == pytest.approx(100 / 110 - 1)
    assert rows[0]["doubts"] == ["cold"]


def test_runs_that_should_be_alike_tell_what_the_machine_does():
    def row(measured, **changes):
        point = {"family": "small", "cached": 1.0, "jobs": 1, "workers": 2, "gpu": 0}
        return point | {"model": "small", "form": "", "measured": measured} | changes

    rows = [row(100), row(110), row(300, workers=3), row(500, cached=0.5), row(30, jobs=3)]

    assert prediction.apart(rows) == pytest.approx(0.1)


def test_the_page_tells_targets_met_and_missed_and_every_point(predicted_then_run):
    _, rows = predicted_then_run
    taken = {"families": {"emulated": "2026-01-01, a machine, `x`"}}

    page = prediction.table(rows, taken)

    assert "emulated: 2026-01-01, a machine, `x`." in page

    assert "| worst | 8% | 9.1% | **missed** |" in page
    assert "- 3 points are bound by storage or the emulated accelerator: median 9.1%" in page
    assert all(f"| {Point().name.replace('x50', x)} |" in page for x in ("x0", "x100"))
    assert prediction.plot(rows).count("<circle") == 3


@pytest.mark.parametrize(
    ("rates", "doubt", "runs", "drift"),
    [
        ([610.0], 0.01, 1, False),
        ([500.0, 590.0], 0.01, 2, False),  # the machine was slower, and is not any more
        ([500.0, 700.0], 0.01, 2, True),  # it stays another
        ([500.0], 0.3, 1, False),  # nobody can tell
    ],
)
def test_a_run_on_a_machine_that_changed_is_done_again(
    monkeypatch, tmp_path, rates, doubt, runs, drift
):
    left = list(rates)

    def profile(point, folder, output, care):
        output.write_text("{}")
        return {"rates": {"P": prepared(left.pop(0), doubt)}}

    monkeypatch.setattr(prediction, "profile", profile)
    base = {"rates": {"P": prepared(600.0)}}
    output = tmp_path / "point.json"
    _, drifted = prediction.steady(Point(cached=0.2), Point(), base, tmp_path, output)

    assert len(rates) - len(left) == runs and output.exists()
    assert (abs(drifted) > prediction.DRIFT) == drift
    assert len(list(tmp_path.glob("point.drifted-*.json"))) == runs - 1


def test_other_workers_are_no_other_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(prediction, "profile", lambda *_: {"rates": {"P": prepared(300.0)}})
    base = {"rates": {"P": prepared(600.0)}}
    for point in (Point(workers=1), Point(form="packed")):
        assert prediction.steady(point, Point(), base, tmp_path, tmp_path / "p.json")[1] == 0
