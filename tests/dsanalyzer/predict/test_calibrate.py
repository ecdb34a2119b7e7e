"""From a profile's passes to the costs that are simulated."""

from dataclasses import replace

import pytest

from dsanalyzer.predict.calibrate import (
    Correction,
    changed,
    read_bytes,
    setup_of,
    with_training,
)
from dsanalyzer.predict.change import Change
from dsanalyzer.predict.simulate import Simulated, simulate


def profile(*, workers=2, cores=2, prep=200.0, cpu_s=0.0, queued_s=0.0, gpu="some GPU", steps=()):
    def rate(value):
        return {"value": value, "low": value, "high": value}

    drain = {"phase": "drain", "samples": 100, "cpu_s": cpu_s, "queued_s": queued_s}
    ingestion = {"phase": "ingestion", "samples": 100, "cpu_s": 0.2, "steps_s": []}
    return {
        "rates": {"G": rate(400.0), "P": rate(prep), "S": rate(100.0), "C": rate(1e5)},
        "options": {"policy": "lru", "cached_fraction": 0.5},
        "loader": {"holds_cache": False, "num_workers": workers, "batch_size": 10},
        "machine": {"cores": cores, "gpu": gpu},
        "dataset": {"samples": 1000, "measured_samples": 500},
        "epochs": [],
        "storage": [{"queue_depth": 1, "samples_per_s": 80.0}],
        "passes": [drain | {"steps_s": list(steps)}, ingestion],
        "emulated": None,
    }


def test_prep_is_what_its_cores_were_busy_for_and_the_rest_is_waiting():
    """Two workers, 200 samples/s: 10 ms of a worker a sample, 4 ms of them on a core."""
    setup = setup_of(profile(cpu_s=0.4))

    assert setup.prep_s == pytest.approx(0.004)
    assert setup.blocked_s == pytest.approx(0.006)


def test_waiting_for_a_core_is_wanting_one():
    setup = setup_of(profile(cpu_s=0.4, queued_s=0.6))

    assert setup.prep_s == pytest.approx(0.010)
    assert setup.blocked_s == pytest.approx(0.0)


def test_more_workers_than_cores_share_them():
    setup = setup_of(profile(workers=8, cpu_s=1.0))

    assert setup.prep_s == pytest.approx(0.010)  # two cores, 200 samples/s
    assert setup.blocked_s == 0.0


def test_without_an_accelerator_the_training_process_computes_on_the_cores():
    setup = setup_of(profile(gpu=None))

    assert setup.gpu_rate == float("inf")
    assert setup.host_s == pytest.approx(1 / 400)
    assert setup_of(profile()).gpu_rate == 400


def test_the_spread_is_that_of_minibatches_not_of_workers_taking_turns():
    turns = [0.0, 0.2] * 20

    assert setup_of(profile(steps=turns)).spread == pytest.approx(0.0)
    assert setup_of(profile(steps=[0.1, 0.3, 0.1, 0.1] * 10)).spread > 0.3


def test_storage_knows_the_depth_that_the_workers_keep():
    assert setup_of(profile()).storage == ((1, 80.0), (2, 100.0))


def test_a_correction_is_linear_between_what_was_measured_and_bounded():
    correction = Correction(((0.0, 0.9), (1.0, 0.7)))

    assert correction.at(0.5) == pytest.approx(0.8)
    assert Correction(((0.0, 9.0),)).at(0.5) == 2.0
    assert Correction().at(0.3) == 1.0


def test_a_correction_is_of_the_stall_and_leaves_alone_what_the_accelerator_binds():
    correction = Correction(((0.0, 1.2), (1.0, 1.2)))

    def simulated(gpu):
        return Simulated(100.0, 100.0, 0.5, 0.0, {"gpu": gpu})

    assert correction.factor(simulated(gpu=0.0)) == pytest.approx(1 / 1.2)
    assert correction.factor(simulated(gpu=0.5)) == pytest.approx(1 / 1.1)
    assert correction.factor(simulated(gpu=1.0)) == 1.0


@pytest.mark.parametrize(
    ("held", "method", "reached", "limited"),
    [
        (None, None, 80.0, False),  # as it is: a disk
        (8e6, "blkio cgroup", 80.0, True),
        (8e6, "blkio cgroup", 40.0, False),  # the disk is slower than its limit
        (8e6, "pacing", 80.0, False),  # which is a queue, as a disk is
    ],
)
def test_storage_that_gives_what_it_is_held_to_is_limited(held, method, reached, limited):
    result = profile()
    result["options"] |= {"storage_bytes_per_s": held, "storage_method": method}
    result["dataset"]["mean_item_bytes"] = 1e5
    result["storage"][0]["samples_per_s"] = reached

    setup = setup_of(result)
    assert setup.limited == limited
    asked = changed(setup, Change(storage_bytes_per_s=2e7), result, None)
    assert asked.limited == (method != "pacing") and asked.storage == ((1, 200.0),)
    assert (asked.burst_s > 0) == (method != "pacing")  # with which it would be verified


def test_storage_is_asked_for_whole_pages():
    result = profile()
    result["dataset"]["mean_item_bytes"] = 1e5
    assert read_bytes(result) == 1e5
    result["dataset"]["mean_read_bytes"] = 1.02e5
    assert read_bytes(result) == 1.02e5


def fetched(cpu_s, share, prep_cpu_s=0.5):
    """A profile whose later epochs read `share` of 100 samples from storage."""
    result = profile()
    result["dataset"]["mean_item_bytes"] = 1000.0
    read = {"samples": 100, "cpu_s": cpu_s, "read_bytes": 1000 * share * 100, "steps_s": []}
    result["passes"] += [
        {"phase": "prep", "samples": 100, "cpu_s": prep_cpu_s, "steps_s": []},
        {"phase": "fetch", "epoch": 0, **read, "cpu_s": 9.0},
        {"phase": "fetch", "epoch": 1, **read},
    ]
    return setup_of(result)


def test_reading_costs_what_later_epochs_take_the_cores_longer_than_prep():
    assert fetched(cpu_s=0.6, share=0.5).read_s == pytest.approx(0.002)
    assert fetched(cpu_s=0.4, share=0.5).read_s == 0.0  # noise
    assert fetched(cpu_s=0.6, share=0.05).read_s == 0.0  # too few to tell
    assert setup_of(profile()).read_s == 0.0


def test_prep_is_as_slow_as_it_was_beside_the_training():
    result = profile(cpu_s=1.0)  # alone: two cores, 200 samples/s
    result["rates"]["G"]["value"] = 1000.0
    result["dataset"]["samples"] = 1000
    steady = {name: {"value": 0.0} for name in ("delivery_s", "prep_stall_s")}
    steady["compute_s"] = {"value": 1.0}
    result["steady"] = steady
    alone = setup_of(result)

    steady["prep_stall_s"]["value"] = 1000 / 170 - 1.0  # 170 samples/s in all
    beside = with_training(result, alone)
    assert beside.prep_s > 1.05 * alone.prep_s
    memory = replace(beside, cached_fraction=1.0, policy="never-evict")
    assert simulate(memory).speed == pytest.approx(170, rel=0.01)

    steady["prep_stall_s"]["value"] = 1000 / 20  # nothing that prep could explain
    assert with_training(result, alone) == alone
    assert with_training({**result, "steady": {}}, alone) == alone
