"""What-if scenarios: the closed form with the right rates put in."""

import pytest

from dsanalyzer.predict.whatif import Change, ask, predict


def rate(value):
    return {"value": value, "low": value * 0.98, "high": value * 1.02}


@pytest.fixture
def result():
    return {
        "rates": {"G": rate(900.0), "P": rate(500.0), "S": rate(200.0), "C": rate(1e6)},
        "options": {"policy": "lru", "cached_fraction": 0.65},
        "loader": {"holds_cache": False},
        "machine": {"cores": 2},
        "dataset": {"samples": 1000, "mean_item_bytes": 100_000.0},
        "epochs": [{"epoch": 0, "read_share": 1.0}, {"epoch": 1, "read_share": 0.72}],
        "steady": {"speed": {"value": 250.0}, "bound_by": "fetch"},
        "model": {"error": 0.1},
        "checks": [],
        "storage": [
            {"queue_depth": 4, "samples_per_s": 200.0, "low": 190.0, "high": 205.0},
            {"queue_depth": 16, "samples_per_s": 190.0, "low": 180.0, "high": 195.0},
        ],
        "emulated": None,
    }


COORDL = {"prep_rate": rate(2000.0), "threads": 4}


def test_coordl_reads_what_does_not_fit_at_the_deepest_queue(result):
    scenario = predict(result, Change(loader="coordl"), COORDL)

    assert scenario["rates"]["F"] == pytest.approx(190 / 0.35, rel=1e-3)
    assert scenario["policy"] == "never-evict"
    assert scenario["bound_by"] == "fetch"
    assert scenario["speed"]["low"] < scenario["speed"]["value"] < scenario["speed"]["high"]
    assert scenario["speedup"] == pytest.approx(190 / 0.35 / 250, rel=1e-3)


def test_coordl_cannot_be_predicted_without_its_rate(result):
    with pytest.raises(ValueError, match="coordl rates"):
        predict(result, Change(loader="coordl"), None)


def test_the_jobs_own_loader_keeps_the_share_it_reached(result):
    everything = predict(result, Change(cached_fraction=1.0), None)

    assert everything["bound_by"] == "prep"
    assert everything["speed"]["value"] == pytest.approx(500 / 1.1)


def test_more_cores_raise_prep_and_faster_gpus_ingestion(result):
    assert predict(result, Change(cores=8), None)["rates"]["P"] == 2000
    assert predict(result, Change(gpu_speedup=2.0), None)["rates"]["G"] == 1800


def test_storage_is_asked_for_in_bytes_and_answered_in_samples(result):
    scenario = predict(result, Change(storage_bytes_per_s=50e6), None)

    assert scenario["rates"]["S"] == 500


def test_a_loader_with_its_own_cache_is_predicted_as_never_evict_at_what_it_holds(result):
    result["loader"]["holds_cache"] = True
    result["epochs"][1]["read_share"] = 0.35

    scenario = predict(result, Change(gpu_speedup=2.0), None)

    assert scenario["policy"] == "never-evict"
    assert scenario["cached_fraction"] == pytest.approx(0.65)


def test_an_answer_fits_its_schema(result):
    jsonschema = pytest.importorskip("jsonschema")
    from dsanalyzer.report import load

    answer = ask(result, [Change(loader="coordl"), Change(cores=4)], "r.json", COORDL)

    jsonschema.validate(answer, load.schema("whatif"))
