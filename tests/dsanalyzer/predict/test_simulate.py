"""The pipeline simulator against cases whose answer is known."""

from dataclasses import replace

import pytest

from dsanalyzer.predict import model
from dsanalyzer.predict.setup import Setup, without
from dsanalyzer.predict.simulate import simulate

JOB = Setup(
    samples=100_000,
    batch_size=32,
    workers=4,
    gpu_rate=900,
    prep_s=2 / 500,  # two cores prepare 500 samples/s
    storage=((1, 200.0), (16, 200.0)),
    cores=2,
    policy="never-evict",
    cached_fraction=0.65,
)


def job(**changes):
    return simulate(replace(JOB, **changes))


@pytest.mark.parametrize(
    ("changes", "speed", "bound"),
    [
        ({"cached_fraction": 0.0}, 200, "fetch"),
        ({"cached_fraction": 1.0}, 500, "prep"),
        ({"gpu_rate": 100}, 100, "gpu"),
        ({"cached_fraction": 1.0, "cores": 8, "workers": 8}, 900, "gpu"),
        ({"cached_fraction": 1.0, "cores": 8, "workers": 1}, 250, "prep"),
    ],
)
def test_where_one_stage_is_far_slower_it_alone_sets_the_speed(changes, speed, bound):
    found = job(**changes)

    # An epoch also fills its queue and drains it: what that costs is not the slowest stage's time.
    assert found.speed == pytest.approx(speed, rel=0.04)
    assert found.speed <= speed * 1.001
    assert found.bound_by == bound


def test_stages_of_their_own_overlap_where_workers_that_do_both_cannot():
    assert job(staged=True).speed == pytest.approx(500, rel=0.01)
    assert 400 < job().speed < 475


def test_workers_that_take_turns_lose_nothing_of_a_volume_that_is_held_to_its_rate():
    """Each fetches and then prepares: a disk is idle meanwhile, a limit is saved up."""
    fast = {"cached_fraction": 0.0, "storage": ((1, 400.0),), "workers": 2}

    assert job(**fast, limited=True).speed == pytest.approx(400, rel=0.03)
    assert job(**fast).speed < 350
    slow_behind = job(**fast, limited=True, latency_s=0.002)
    assert slow_behind.speed == pytest.approx(2 / (0.004 + 0.002), rel=0.05)


def test_reading_takes_cores_from_prep():
    fast = {"cached_fraction": 0.0, "storage": ((1, 1e6),), "workers": 4}

    assert job(**fast).speed == pytest.approx(500, rel=0.03)
    assert job(**fast, read_s=0.001).speed == pytest.approx(2 / 0.005, rel=0.03)
    in_memory = job(cached_fraction=1.0)
    assert job(cached_fraction=1.0, read_s=0.001).speed == pytest.approx(in_memory.speed)


def test_without_workers_everything_is_one_after_the_other():
    found = job(workers=0, cached_fraction=0.0, gpu_rate=300, device_ahead=0)

    assert found.speed == pytest.approx(1 / (1 / 200 + 2 / 500 + 1 / 300), rel=0.01)


def test_a_spread_of_minibatches_costs_where_the_queue_is_short():
    even = job(cached_fraction=1.0, gpu_rate=500)
    uneven = job(cached_fraction=1.0, gpu_rate=500, spread=0.8)
    deep = job(cached_fraction=1.0, gpu_rate=500, spread=0.8, prefetch_factor=16)

    assert uneven.speed < 0.99 * even.speed
    assert deep.speed > uneven.speed


@pytest.mark.parametrize("policy", model.POLICIES)
def test_hits_are_those_of_the_policy(policy):
    found = job(policy=policy)

    assert found.hit_rate == pytest.approx(model.hit_rate(policy, 0.65), abs=0.02)
    assert found.first_speed == pytest.approx(200, rel=0.02)


def test_an_lru_epoch_is_slower_than_its_mean_rates_say():
    """It hits early and misses late: the fast part waits for prep, the slow one for storage."""
    found = job(policy="lru")
    mean = model.fetch_rate(model.hit_rate("lru", 0.65), 200, float("inf"))

    assert found.speed < 0.98 * min(mean, 500)


def test_jobs_share_the_disk_and_coordinated_ones_read_and_prepare_once():
    one = job(staged=True)
    four = job(staged=True, jobs=4)
    together = job(staged=True, jobs=4, coordinated=True)

    assert four.speed < 0.3 * one.speed
    assert together.speed == pytest.approx(one.speed, rel=0.02)


def test_a_page_cache_shared_by_jobs_hits_what_another_has_just_read():
    assert job(policy="lru", jobs=4).hit_rate > job(policy="lru").hit_rate + 0.1


def test_servers_with_their_own_caches_hit_what_each_holds_and_partitions_hit_the_sum():
    alone = job(servers=2)
    together = job(servers=2, partitioned=True, network=1e5)

    assert alone.hit_rate == pytest.approx(0.65, abs=0.02)
    assert together.hit_rate == pytest.approx(1.0, abs=0.001)
    assert together.peer_share == pytest.approx(0.5, abs=0.03)
    assert together.speed > alone.speed


def test_a_slow_network_is_what_partitioned_servers_wait_for():
    found = job(servers=2, partitioned=True, network=50, cached_fraction=1.0)

    assert found.bound_by == "fetch"
    assert found.speed == pytest.approx(2 * 50 / 0.5, rel=0.05)


def test_servers_of_one_storage_share_it():
    own = job(servers=2, cached_fraction=0.0)
    shared = job(servers=2, cached_fraction=0.0, shared_storage=True)

    assert own.speed == pytest.approx(400, rel=0.03)
    assert shared.speed == pytest.approx(200, rel=0.03)


def test_training_on_the_cores_that_prep_wants_slows_both():
    alone = job(cached_fraction=1.0, gpu_rate=float("inf"))
    computing = job(cached_fraction=1.0, gpu_rate=float("inf"), host_s=2 / 500, host_cores=2.0)

    assert computing.speed == pytest.approx(alone.speed / 2, rel=0.03)


def test_storage_is_as_fast_as_its_queue_is_deep():
    assert JOB.storage_rate(4) == 200
    table = replace(JOB, storage=((1, 100.0), (4, 300.0)))
    assert [table.storage_rate(n) for n in (1, 2, 4, 64)] == [100, 200, 300, 300]


def test_the_same_seed_gives_the_same_training():
    assert job(spread=0.5) == job(spread=0.5)
    assert simulate(replace(JOB, spread=0.5), seed=1) != job(spread=0.5)


def test_what_no_training_has_is_refused():
    with pytest.raises(ValueError, match="prep_s is 0"):
        replace(JOB, prep_s=0)
    with pytest.raises(ValueError, match="several jobs on several servers"):
        replace(JOB, jobs=2, servers=2)
    with pytest.raises(ValueError, match="unknown cache policy 'fifo'"):
        job(policy="fifo")
    with pytest.raises(ValueError, match="storage has no rate"):
        replace(JOB, storage=())
    with pytest.raises(ValueError, match="unknown feature"):
        without(JOB, "gravity")
