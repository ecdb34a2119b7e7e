"""A profile is made to fit its budget: samples, rounds and epochs."""

import pytest

from dsanalyzer.measure import timing
from dsanalyzer.measure.options import Options
from dsanalyzer.measure.plan import Asked, Speeds, make
from dsanalyzer.measure.session import Session

FAST = Speeds(loader=2000, step=1000)


def plan(budget_s=180, asked=Asked(), speeds=FAST, window=256, available=100_000):
    return make(budget_s, 2.0, asked, speeds, window, available)


class Progress:
    total_s = 0.0

    def __call__(self, text):
        pass


def session_of(folder, **options):
    """A session whose job has told of its loader: 500 samples/s, minibatches of 32."""
    session = Session(["x"], Options(**options), folder, Progress())
    session._started = timing.clock()
    told = {"batch": 32, "loader_rate": 500, "workers": 2, "step_rate": 1000, "window": 128}
    session._make_plan(told | {"available": 100_000})
    return session


def test_items_larger_than_was_thought_make_the_plan_smaller(tmp_path):
    folder = tmp_path
    session = session_of(folder, storage_bytes_per_s=15e6)
    samples = session.plan.samples
    chosen = {
        "indices": list(range(samples)),
        "sizes": {str(number): 1_000_000 for number in range(samples)},
    }

    count = session._limit_samples(chosen)

    assert count < samples and count % 32 == 0
    assert session.plan.seconds(session._speeds) <= 180


def test_storage_slower_than_was_thought_costs_epochs(tmp_path):
    session = session_of(tmp_path)
    assert session.plan.epochs == 4

    session._plan_anew(session.plan.samples, 15.0, chosen=True)

    assert session.plan.epochs == 2


def test_a_fast_job_is_measured_in_full():
    found = plan()

    assert (found.samples, found.rounds, found.epochs) == (2048, 3, 4)
    assert found.seconds(FAST) < 180


@pytest.mark.parametrize("loader", [10, 30, 100, 300])
@pytest.mark.parametrize("storage", [0, 50, 200])
def test_what_is_left_open_is_cut_until_it_fits(loader, storage):
    speeds = Speeds(loader, 1000, storage, hits=0.3)
    found = plan(speeds=speeds, window=16)

    assert found.seconds(speeds) <= 180
    assert found.samples >= 8 * 16


def test_what_was_asked_for_is_kept_even_where_it_does_not_fit():
    slow = Speeds(loader=10)
    found = plan(asked=Asked(samples=4000, rounds=5, epochs=6), speeds=slow)

    assert (found.samples, found.rounds, found.epochs) == (4000, 5, 6)
    assert found.seconds(slow) > 180


def test_a_pass_stays_long_against_the_prefetch_window():
    found = plan(speeds=Speeds(loader=5), window=64)

    assert (found.samples, found.rounds, found.epochs) == (8 * 64, 2, 2)
    assert plan(window=1000).samples == 8000


def test_most_of_a_data_set_means_all_of_it():
    assert plan(available=2400).samples == 2400
    assert plan(available=300, window=32).samples == 300
    assert plan(available=10_000).samples == 2048


def test_the_estimate_grows_with_what_is_slow():
    found = plan()
    quick, held = found.seconds(FAST), found.seconds(Speeds(2000, 1000, storage=100))

    assert held - quick == pytest.approx(4 * (2048 / 100 - 2048 / 1000))


def test_the_steps_a_script_must_have_are_said():
    found = plan()

    assert found.steps(batch=32) == max(13 * 400 + 3 * 64, 4 * (400 + 64)) + 10
