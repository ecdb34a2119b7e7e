"""The simulator's clock and what is shared on it."""

import pytest

from dsanalyzer.predict.events import Clock, Limited, Shared


def finish_times(shared, clock, arrivals):
    ends = {}
    for name, (moment, work) in arrivals.items():
        clock.at(
            moment,
            lambda name=name, work=work: shared.use(work, lambda: ends.update({name: clock.now})),
        )
    clock.run()
    return ends


def test_users_share_equally_and_each_gets_what_the_cores_allow():
    clock = Clock()
    cores = Shared(clock, lambda n: min(n, 2))

    ends = finish_times(cores, clock, {"a": (0, 1.0), "b": (0, 1.0), "c": (0, 1.0), "d": (0, 1.0)})

    assert all(end == pytest.approx(2.0) for end in ends.values())
    assert cores.work_done == pytest.approx(4.0)


def test_who_comes_later_slows_who_is_there():
    clock = Clock()
    core = Shared(clock, lambda n: 1)

    ends = finish_times(core, clock, {"early": (0, 2.0), "late": (1, 0.5)})

    assert ends["late"] == pytest.approx(2.0)
    assert ends["early"] == pytest.approx(2.5)


def test_in_turn_the_first_to_come_ends_first():
    clock = Clock()
    disk = Shared(clock, lambda n: 10.0, in_turn=True)

    ends = finish_times(disk, clock, {"a": (0, 10), "b": (0, 10), "c": (5, 10)})

    assert ends == pytest.approx({"a": 1.0, "b": 2.0, "c": 6.0})
    assert disk.busy_s == pytest.approx(3.0)


def test_what_was_cancelled_does_not_hold_up_the_clock():
    clock = Clock()
    clock.cancel(clock.at(9.0, lambda: pytest.fail("it was cancelled")))
    clock.at(1.0, lambda: None)

    clock.run()

    assert clock.now == 1.0


def test_a_limit_lets_through_at_once_what_it_did_not_give_before():
    clock = Clock()
    volume = Limited(clock, rate=10.0, burst_s=0.5)  # 5 at once after half a second of rest

    ends = finish_times(volume, clock, {"a": (1, 5.0), "b": (1, 5.0), "c": (9, 7.0)})

    assert ends["a"] == pytest.approx(1.0)
    assert ends["b"] == pytest.approx(1.5)
    assert ends["c"] == pytest.approx(9.2)
    assert volume.work_done == 17 and volume.busy_s == pytest.approx(1.7)


def test_users_who_pause_get_all_of_a_limit_and_not_of_a_disk():
    def speed(resource, clock):
        def use():
            resource.use(1, lambda: clock.at(clock.now + 0.1, use) if clock.now < 20 else None)

        use()
        clock.run()
        return resource.work_done / clock.now

    clock = Clock()
    assert speed(Limited(clock, 10.0, 0.2), clock) == pytest.approx(10, rel=0.05)
    clock = Clock()
    assert speed(Shared(clock, lambda _: 10.0, in_turn=True), clock) == pytest.approx(5, rel=0.05)
