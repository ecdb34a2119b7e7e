"""The result in sentences, and the figures in them."""

from __future__ import annotations

import pytest

from dsanalyzer.report import charts, page, units
from dsanalyzer.report.verdict import (
    emulation,
    expected_share,
    headline,
    next_command,
    repeat_advice,
    steady_storage_bytes,
    wait_share,
)
from dsanalyzer.report.workers import contention, sample_costs, workers_knee


def text(words: str | None) -> str:
    return (words or "").replace(units.NBSP, " ")


def test_two_stalls_are_told_with_the_whole_wait_first_and_the_larger_next(result):
    assert text(headline(result)) == (
        "The GPU waits 79 % (78–80) of each epoch: 53 % for storage (fetch stall), "
        "26 % for decoding (prep stall)."
    )


def test_one_stall_is_told_with_its_interval_and_the_other_denied(after):
    assert text(headline(after)) == (
        "The GPU waits 59 % (57–61) of each epoch for storage (fetch stall). "
        "No prep stall was found."
    )


def test_no_stall_says_that_the_gpu_is_busy(make_result):
    fed = make_result(gpu=100, verdicts=("none", "none"))
    assert text(headline(fed)).startswith("No data stall: the GPU is busy for 100 % of each epoch")
    assert repeat_advice(fed) is None


def test_an_inconclusive_stall_claims_nothing_and_says_what_to_run(make_result):
    open_case = make_result(gpu=150, storage_bytes_per_s=15e6, verdicts=("inconclusive", "none"))
    open_case["steady"]["fetch_stall_s"].update(share=0.02, share_low=-0.03, share_high=0.07)
    assert text(headline(open_case)) == (
        "Inconclusive: the fetch stall may be −3 to 7 % of each epoch."
    )
    # the check that failed says what to do: more rounds would not mend it
    assert "a failed check says why, and what to do" in text(repeat_advice(open_case))
    open_case["checks"] = [check for check in open_case["checks"] if check["ok"]]
    assert "`--rounds 9`" in text(repeat_advice(open_case))


def test_a_stall_found_is_told_even_where_the_other_is_open(make_result):
    mixed = make_result(verdicts=("stall", "inconclusive"))
    assert text(headline(mixed)).startswith("The GPU waits 53 % (51–55) of each epoch for storage")
    assert "Inconclusive: the prep stall may be" in text(headline(mixed))


def test_delivery_is_told_where_it_is_as_long_as_a_stall_must_be(make_result):
    fed = make_result(gpu=100, verdicts=("none", "none"))
    whole = fed["steady"]["time_s"]["value"]
    fed["steady"]["delivery_s"] = {"value": 0.1 * whole, "low": 0.03 * whole, "high": 0.2 * whole}
    assert "(delivery) is 10 % of each epoch: larger minibatches" in text(headline(fed))
    assert "faster GPU" not in text(headline(fed))

    fed["steady"]["threshold"] = 0.05
    assert "delivery" not in text(headline(fed))


def loaded(result, phase, wall_s, queued_s):
    """What 100 samples took the workers in each pass of `phase`."""
    for one in result["passes"]:
        if one["phase"] == phase:
            one["loaded"] = {"samples": 100, "wall_s": wall_s, "cpu_s": 0.5, "queued_s": queued_s,
                             "collate_s": 0.1}  # fmt: skip


def test_a_fetch_stall_in_the_run_queue_is_told_as_contention(after, tmp_path):
    loaded(after, "prep", 1.0, 0.1)
    loaded(after, "fetch", 1.6, 0.2)  # 6 ms longer, of which 1 in the run queue
    assert contention(after) is None
    assert "for storage (fetch stall)" in text(headline(after))

    loaded(after, "fetch", 1.6, 0.5)
    assert "takes a worker 6.00 ms longer than from memory, and 4.00 ms" in text(contention(after))
    assert "for cores rather than storage (a fetch stall by CPU contention)" in text(
        headline(after)
    )
    assert "--cores" in next_command(after, "r.json")
    written = page.write_page(after, tmp_path / "r.html").read_text()
    assert "it is ready to run and has no core" in written

    after["steady"]["fetch_stall_s"]["verdict"] = "none"
    assert contention(after) is None


def test_a_stall_at_the_threshold_itself_is_not_settled_by_more_rounds(make_result):
    open_case = make_result(verdicts=("inconclusive", "none"), failed=False)
    stall = open_case["steady"]["fetch_stall_s"]
    stall.update(share=0.0501, share_low=0.04, share_high=0.06, rounds_needed=None)
    open_case["steady"] |= {"threshold": 0.05, "noise_floor": 0.01}
    assert "as large as one has to be to count (5 % of the epoch)" in text(repeat_advice(open_case))

    open_case["steady"]["noise_floor"] = 0.07
    assert "(noise floor 7 % of the epoch)" in text(repeat_advice(open_case))


def test_wait_share_is_what_compute_leaves_of_the_epoch(result):
    share = wait_share(result)
    assert share["value"] == pytest.approx(1 - (2400 / 900) / result["steady"]["time_s"]["value"])
    # compute and epoch time are each known to 3 %, their ratio to sqrt(2) times that
    assert share["low"] == pytest.approx(share["value"] - (1 - share["value"]) * 0.03 * 2**0.5)
    assert share["low"] < share["value"] < share["high"]


def test_an_emulated_gpu_is_told_with_its_rate(result, make_result):
    assert text(emulation(result)).startswith("The GPU is emulated at 900 samples/s: ")
    assert emulation(make_result(emulated=False)) is None


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({}, ["--cache", "75%", "--cores", "4", "--loader", "coordl"]),
        ({"prep": 150}, ["--cores", "4", "--loader", "coordl"]),
        ({"gpu": 100, "verdicts": ("none", "none")}, ["--gpu-speedup", "2"]),
        ({"policy": "never-evict", "verdicts": ("stall", "none")}, ["--cache", "75%"]),
    ],
)
def test_the_next_command_asks_about_what_binds(make_result, rates, words):
    assert next_command(make_result(**rates), "r.json") == [
        "dsanalyzer",
        "whatif",
        "r.json",
        *words,
    ]


def test_the_cache_asked_about_is_at_most_everything(make_result):
    assert "100%" in next_command(make_result(cached=0.9, prep=2100), "r.json")
    full = make_result(cached=1.0, cache=300)
    assert "--cache" not in next_command(full, "r.json")


def test_storage_bytes_are_those_of_the_epochs_after_the_first(result):
    share = steady_storage_bytes(result) / (2400 * 110_000)
    assert share == pytest.approx(expected_share(result), rel=1e-6)
    assert share == pytest.approx(0.717, abs=0.001)


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (units.percent(0.413), "41 %"),
        (units.percent(0.004), "0.4 %"),
        (units.percent(-0.0001), "0 %"),
        (units.percent(1.0), "100 %"),
        (units.percent_range(0.38, 0.44), "38–44"),
        (units.percent_range(-0.03, 0.02), "−3 to 2"),
        (units.signed_percent(0.034), "+3.4 %"),
        (units.signed_percent(-0.2), "−20 %"),
        (units.seconds(12.84), "12.8 s"),
        (units.seconds(0.0412), "41.2 ms"),
        (units.seconds(0), "0 s"),
        (units.seconds(119), "119 s"),
        (units.seconds(858), "14.3 min"),
        (units.seconds(9000), "2.5 h"),
        (units.seconds(-1.25), "−1.25 s"),
        (units.size(189_300_000), "189 MB"),
        (units.size(0), "0 B"),
        (units.size(999_600), "1 MB"),
        (units.rate(5000), "5,000 samples/s"),
        (units.times(2.834), "2.83×"),
    ],
)
def test_quantities_read_as_people_write_them(shown, wanted):
    assert text(shown) == wanted


def test_the_knee_of_workers_is_where_more_gain_little(result):
    assert workers_knee(result) is None and charts.workers_chart(result) is None
    found = {1: 100.0, 2: 190.0, 4: 300.0, 8: 305.0}
    result["prep_by_workers"] = [
        {"workers": workers, "value": rate, "low": 0.9 * rate, "high": 1.1 * rate}
        for workers, rate in found.items()
    ]

    assert workers_knee(result) == 4
    chart = charts.workers_chart(result)
    assert chart is not None and chart["data"][0]["x"] == [1, 2, 4, 8]


def test_what_a_sample_takes_a_worker_is_told_by_phase(result, tmp_path):
    assert sample_costs(result) == {}
    for one in result["passes"]:
        if one["phase"] in ("prep", "fetch"):
            rest = 0.5 if one["phase"] == "fetch" else 0.0
            one["loaded"] = {"samples": 100, "wall_s": 1.0 + rest, "cpu_s": 0.8, "queued_s": 0.2,
                             "collate_s": 0.1}  # fmt: skip

    costs = sample_costs(result)

    assert costs["prep"].total_s == pytest.approx(0.010)
    assert costs["prep"].else_s == pytest.approx(0.0, abs=1e-12)
    assert costs["fetch"].else_s == pytest.approx(0.005)
    assert (
        "What a sample takes a worker" in page.write_page(result, tmp_path / "r.html").read_text()
    )
