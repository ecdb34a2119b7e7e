"""What-if scenarios: the closed form with the right rates put in."""

import pytest

from dsanalyzer.predict import calibrate
from dsanalyzer.predict.change import Change
from dsanalyzer.predict.whatif import Basis, ask, predict


def rate(value):
    return {"value": value, "low": value * 0.98, "high": value * 1.02}


@pytest.fixture
def result():
    return {
        "rates": {"G": rate(900.0), "P": rate(500.0), "S": rate(200.0), "C": rate(1e6)},
        "options": {"policy": "lru", "cached_fraction": 0.65},
        "loader": {"holds_cache": False, "num_workers": 4, "batch_size": 32},
        "machine": {"cores": 2, "gpu": "some GPU"},
        "dataset": {"samples": 4000, "mean_item_bytes": 100_000.0},
        "epochs": [{"epoch": 0, "read_share": 1.0}, {"epoch": 1, "read_share": 0.72}],
        "steady": {"speed": {"value": 250.0}, "bound_by": "fetch"},
        "model": {"error": 0.1},
        "passes": [],
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
    assert scenario["speedup"] == pytest.approx(190 / 0.35 / 250, rel=0.05)


def test_coordl_cannot_be_predicted_without_its_rate(result):
    with pytest.raises(ValueError, match="coordl rates"):
        predict(result, Change(loader="coordl"), None)


def test_packed_items_take_more_memory_so_that_fewer_are_held(result):
    packed = {**COORDL, "form": "packed", "expansion": 1.3}

    scenario = predict(result, Change(loader="coordl", form="packed"), packed)

    assert scenario["hit_rate"] == pytest.approx(0.5, abs=0.001)
    assert any("1.30 times their file in memory (measured)" in note for note in scenario["notes"])


def test_the_rates_of_another_form_are_refused(result):
    with pytest.raises(ValueError, match="rates are of original items, not packed"):
        predict(result, Change(loader="coordl", form="packed"), COORDL)


def test_the_jobs_own_loader_is_off_from_the_simulator_as_it_was_when_measured(result):
    basis = Basis.of(result)
    as_measured = predict(basis, Change(policy="lru"), None)

    assert as_measured["model"]["simulated"] == pytest.approx(250, rel=0.001)
    assert as_measured["model"]["closed_form"] == pytest.approx(200 / 0.7174 / 1.1, rel=0.01)


def test_the_simulator_is_shown_where_the_two_differ_and_the_cause_is_named(result):
    differs = predict(result, Change(cached_fraction=0.65, policy="never-evict"), None)

    assert differs["model"]["shown"] == "simulator"
    assert differs["speed"]["value"] == differs["model"]["simulated"]
    assert "fetch and prep by turns in each worker" in differs["model"]["why"]


def test_the_closed_form_is_shown_where_the_simulator_agrees(result):
    result["steady"]["speed"]["value"] = 270.0
    result["model"]["error"] = 0.0
    agrees = predict(result, Change(gpu_speedup=0.1), None)

    assert agrees["model"]["shown"] == "closed form"
    assert agrees["speed"]["value"] == agrees["model"]["closed_form"] == pytest.approx(90)


def test_more_cores_raise_prep_and_faster_gpus_ingestion(result):
    assert predict(result, Change(cores=8), None)["rates"]["P"] == 2000
    assert predict(result, Change(gpu_speedup=2.0), None)["rates"]["G"] == 1800
    assert predict(result, Change(gpus=3), None)["rates"]["G"] == 2700


def test_workers_beyond_the_cores_prepare_nothing_more(result):
    assert predict(result, Change(workers=16), None)["rates"]["P"] == 500
    assert predict(result, Change(workers=1), None)["rates"]["P"] == 250
    assert predict(result, Change(workers=16, cores=16), None)["rates"]["P"] == 4000


def test_jobs_of_their_own_share_and_coordinated_ones_do_not_pay_again(result):
    alone = predict(result, Change(jobs=4), None)
    together = predict(result, Change(jobs=4, coordinated=True), None)

    assert alone["rates"]["P"] == pytest.approx(125)
    assert together["rates"]["P"] == pytest.approx(500)
    assert alone["speed"]["value"] < 0.6 * together["speed"]["value"]
    assert any("coordl's: add --loader coordl" in note for note in together["notes"])


def test_partitioned_caches_of_two_servers_hold_what_one_cannot(result):
    change = Change(servers=2, policy="never-evict", network_bytes_per_s=1e9)
    alone = predict(result, change, None)
    together = predict(result, change.merged(Change(partitioned=True)), None)

    assert alone["hit_rate"] == pytest.approx(0.65)
    assert together["hit_rate"] == pytest.approx(1.0)
    assert together["storage_bytes_per_epoch"] == pytest.approx(0)
    assert together["speed"]["value"] > alone["speed"]["value"]


def test_lru_on_several_servers_has_no_formula_and_says_so(result):
    found = predict(result, Change(servers=2), None)

    assert found["model"]["closed_form"] is None
    assert found["model"]["shown"] == "simulator"
    assert "no formula for a cache that evicts" in found["model"]["why"]
    assert found["speed"]["low"] < found["speed"]["value"] < found["speed"]["high"]


def test_jobs_on_several_servers_are_refused():
    with pytest.raises(ValueError, match="one after the other"):
        Change(jobs=2, servers=2)


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


PRICES = """
currency = "USD"
per = "hour"
[machine]
price = 3.0
[cache]
per_GB = 0.5
[cores]
each = 0.05
[storage.nvme]
price = 0.2
[loader.coordl]
"""


@pytest.fixture
def ranked(result, tmp_path):
    from dsanalyzer.predict import fixes, prices

    def rank(text):
        path = tmp_path / "prices.toml"
        path.write_text(text)
        return fixes.rank(Basis.of(result), prices.load(path), {"original": COORDL})

    return rank


def test_fixes_are_ranked_by_what_an_epoch_costs_with_them(ranked):
    found = ranked(PRICES)

    costs = [fix["cost_per_epoch"] for fix in found]
    assert costs == sorted(costs)
    assert found[0]["changes"]["loader"] == "coordl"  # it costs nothing and is far faster
    hours = found[0]["epoch_s"] / 3600
    assert costs[0] == pytest.approx((3.0 + found[0]["price"]) * hours)


def test_without_a_machine_price_the_cheapest_that_removes_the_stall_comes_first(ranked):
    found = ranked(PRICES.replace("[machine]\nprice = 3.0\n", ""))

    free = [fix["removes_stall"] for fix in found]
    assert free == sorted(free, reverse=True) and free[0]
    prices = [fix["price"] for fix in found if fix["removes_stall"]]
    assert prices == sorted(prices)


def test_nothing_beyond_what_can_be_had_is_proposed(ranked):
    found = ranked("[cores]\neach = 1\nmax = 3\n[cache]\nper_GB = 1\nmax_GB = 0.3")

    assert all(fix["changes"].get("cores", 0) <= 3 for fix in found)
    assert all(fix["changes"].get("cached_fraction", 0) <= 0.75 for fix in found)


def test_an_answer_with_fixes_fits_its_schema(result, ranked):
    jsonschema = pytest.importorskip("jsonschema")
    from dsanalyzer.report import load

    answer = ask(result, [Change(jobs=2)], "r.json", None)
    answer["fixes"] = ranked(PRICES)

    jsonschema.validate(answer, load.schema("whatif"))
    assert load.first_fault(answer, load.schema("whatif")) is None


def test_a_question_of_workers_is_answered_with_what_was_measured(result):
    found = [(4, 500.0), (8, 650.0), (16, 675.0)]
    result["prep_by_workers"] = [{"workers": n, **rate(value)} for n, value in found]
    basis = Basis.of(result)

    for workers, prep in ((8, 650.0), (12, 662.5)):
        asked = predict(basis, Change(workers=workers), None, simulator=False)
        assert asked["rates"]["P"] == pytest.approx(prep)
    setup = calibrate.changed(basis.setup, Change(workers=8), basis.result, None)
    assert setup.cores / setup.prep_s == pytest.approx(650.0) and setup.blocked_s == 0
