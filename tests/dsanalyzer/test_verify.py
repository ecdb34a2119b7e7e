"""`whatif --verify`: what the tool can bring about is run, and the error is told."""

import pytest

from dsanalyzer.cli import verify
from dsanalyzer.measure.not_measured import NotMeasured


@pytest.fixture
def result():
    return {
        "command": ["python", "train.py"],
        "options": {
            "policy": "lru", "cached_fraction": 0.5, "storage_bytes_per_s": 2e7, "gpu_rate": 500,
            "samples": 640, "rounds": 3,
        },
        "emulated": {"gpu_rate": 500, "how": "a queue"},
        "loader": {"holds_cache": False},
        "storage": [{"bytes_per_s": 2e7}],
    }  # fmt: skip


def scenario(**changes):
    return {"name": "it", "changes": changes, "speed": {"value": 110.0}}


def test_a_scenario_is_run_with_the_profiles_options_and_its_own_changes(result):
    options = verify.options_of(result, scenario(cached_fraction=0.8, gpu_speedup=2.0))

    assert (options.cached_fraction, options.gpu_rate) == (0.8, 1000)
    assert (options.policy, options.storage_bytes_per_s) == ("lru", 2e7)
    assert (options.samples, options.rounds) == (640, 3)


def test_a_traced_accelerator_is_as_much_faster(result):
    result["options"] |= {"gpu_trace": [0.002, 0.004], "epochs": 3}
    options = verify.options_of(result, scenario(gpu_speedup=2.0))

    assert (options.gpu_trace, options.gpu_rate, options.epochs) == ((0.001, 0.002), 1000, 3)


def test_storage_faster_than_there_is_cannot_be_brought_about(result):
    assert verify.why_not(result, scenario(storage_bytes_per_s=4e7)) is None
    result["options"]["storage_bytes_per_s"] = None
    assert "20 MB/s at most" in verify.why_not(result, scenario(storage_bytes_per_s=4e7))
    assert verify.why_not(result, scenario(storage_bytes_per_s=1e7)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cores": 8}, "cores cannot be changed"),
        ({"jobs": 2, "cached_fraction": 1.0}, "jobs cannot be changed"),
        ({"policy": "pagecache"}, "not what the tool enforces"),
    ],
)
def test_what_cannot_be_brought_about_is_said(result, changes, said):
    assert said in verify.verify(result, scenario(**changes), None)["why_not"]


def test_a_real_accelerator_and_a_loaders_own_cache_stay_as_they_are(result):
    result["emulated"] = None
    assert "does not become faster" in verify.why_not(result, scenario(gpu_speedup=2.0))
    result["loader"]["holds_cache"] = True
    assert "set in the script" in verify.why_not(result, scenario(cached_fraction=0.8))


def test_the_error_is_predicted_over_measured(result, monkeypatch):
    from dsanalyzer import result as results

    class Measured:
        def __init__(self, command, options, directory, progress):
            assert command == ["python", "train.py"]

        def measure(self):
            return None

    built = {
        "steady": {"speed": {"value": 100.0, "low": 98, "high": 102}},
        "checks": [{"name": "cold", "ok": False}],
    }
    monkeypatch.setattr(verify, "Session", Measured)
    monkeypatch.setattr(results, "build", lambda *_: built)

    found = verify.verify(result, scenario(cached_fraction=0.8), None)

    assert found["error"] == pytest.approx(0.1)
    assert found["doubts"] == ["cold"]


def test_a_run_that_fails_says_why(result, monkeypatch):
    class Fails:
        def __init__(self, *_):
            pass

        def measure(self):
            raise NotMeasured("the script ended")

    monkeypatch.setattr(verify, "Session", Fails)

    found = verify.verify(result, scenario(cached_fraction=0.8), None)
    assert found == {"why_not": "the script ended", "failed": True}
