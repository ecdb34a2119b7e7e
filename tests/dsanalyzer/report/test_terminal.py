"""What a terminal shows: order, width, alphabet, colour."""

from __future__ import annotations

import re

import pytest

from dsanalyzer.report import terminal


def lines(text: str) -> list[str]:
    return text.splitlines()


@pytest.fixture
def everything(result, after, whatif, printed):
    """All three reports as one text, printed at a given width."""

    def run(**options):
        return "".join(
            (
                printed(terminal.summary, result, **options),
                printed(terminal.summary, after, **options),
                printed(terminal.whatif_table, whatif, **options),
                printed(terminal.comparison, result, after, whatif["scenarios"][2], **options),
            )
        )

    return run


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_wider_than_the_terminal(everything, width):
    assert max(map(len, lines(everything(width=width)))) <= width


def test_no_line_is_wider_than_80_columns_where_figures_are_large(make_result, printed):
    large = make_result(samples=14_000_000, item_bytes=1.1e6, gpu=90_000, prep=40_000)
    assert max(map(len, lines(printed(terminal.summary, large)))) <= 80


def test_a_wider_terminal_gets_longer_bars(result, printed):
    def longest(width):
        return max(
            line.count("░") for line in lines(printed(terminal.summary, result, width=width))
        )

    assert longest(100) > longest(80)


def test_the_first_line_says_emulated_and_the_verdict_comes_next(result, printed):
    shown = printed(terminal.summary, result)
    assert lines(shown)[0].startswith("EMULATED  The GPU is emulated at 900 samples/s")
    assert shown.index("The GPU waits 79 % (78–80)") < shown.index("Where an epoch goes")


def test_a_real_gpu_starts_with_the_verdict_and_never_says_emulated(make_result, printed):
    shown = printed(terminal.summary, make_result(emulated=False))
    assert shown.startswith("The GPU waits 79 %")
    assert "mulated" not in shown


def test_only_the_lowest_rate_is_marked(result, make_result, printed):
    for measured, row in ((result, "F fetch"), (make_result(prep=150), "P prep")):
        marked = [line for line in lines(printed(terminal.summary, measured)) if "lowest" in line]
        marked = [line for line in marked if not line.startswith("Rates")]
        assert len(marked) == 1
        assert marked[0].strip().startswith(row)


def test_the_bars_of_an_epoch_are_as_long_as_its_times(result, printed):
    (first,) = (line for line in lines(printed(terminal.summary, result)) if "first epoch" in line)
    (later,) = (
        line for line in lines(printed(terminal.summary, result)) if "later epochs " in line
    )
    assert len(re.findall("[█▓░]", first)) == 80 - terminal.LABEL
    ratio = result["steady"]["time_s"]["value"] / result["epochs"][0]["time_s"]["value"]
    assert len(re.findall("[█▓░]", later)) == pytest.approx(ratio * (80 - terminal.LABEL), abs=1)
    # the same compute and prep time: the same cells, whatever comes after them
    assert first.count("█") == later.count("█")
    assert first.count("▓") == later.count("▓")


def test_the_first_epoch_is_left_out_where_it_was_not_measured(result, edited, printed):
    shown = printed(terminal.summary, edited(result, "epochs", []))
    assert "first epoch" not in shown
    assert "later epochs" in shown


def test_failed_checks_are_shown_as_written_and_passed_ones_counted(result, printed):
    shown = printed(terminal.summary, result)
    assert "2 passed, 1 failed" in shown
    assert "✗ idle machine: load 1.9 [2 cores] while measuring" in shown  # no markup is read
    assert "data cold before fetch" not in shown


def test_what_the_profile_itself_took_is_said(result, edited, printed):
    shown = " ".join(printed(terminal.summary, result).split())
    assert "took 61 s; dsanalyzer held 96 MB of memory at most, minibatches kept" in shown
    assert "dsanalyzer held" not in printed(terminal.summary, edited(result, "tool.took_s"))


def test_diverted_checkpoints_are_listed(result, printed):
    shown = printed(terminal.summary, result)
    assert "1 file diverted:" in shown
    assert "/tmp/run/checkpoint.pt" in shown


def test_bytes_read_stand_beside_what_the_policy_should_read(result, printed):
    assert "189 MB per later epoch, 72 % of the data set (expected" in printed(
        terminal.summary, result
    )


def test_a_rate_that_was_not_measured_says_why(result, edited, printed):
    for field in ("value", "low", "high"):
        result = edited(result, f"rates.S.{field}", None)
    result = edited(result, "rates.S.how", "the storage could not be read cold")
    shown = printed(terminal.summary, result)
    assert re.search(r"S storage +not measured: the storage could not be read cold", shown)


def test_the_next_command_can_be_copied_even_when_it_is_long(result, printed):
    path = "reports/2026-11-22/a rather long name of a run/on the second machine/result.json"
    shown = printed(terminal.summary, result, path=path)
    command = shown[shown.index("Next") :].split("\n", 1)[1]
    joined = command.replace(" \\\n", " ")
    assert "--cache 75%" in joined and f"'{path}'" in " ".join(joined.split())


def test_an_inconclusive_result_says_what_to_run(make_result, printed):
    result = make_result(verdicts=("inconclusive",) * 2)
    result["checks"] = [check for check in result["checks"] if check["ok"]]
    shown = " ".join(printed(terminal.summary, result).split())
    assert shown.count("Inconclusive") == 1
    assert "profile again with `--rounds 9`" in shown


def test_many_files_diverted_are_not_all_told(result, printed):
    result["diverted"] = [f"/job/checkpoint-{step}.pt" for step in range(77)]
    shown = printed(terminal.summary, result)
    assert "77 files diverted" in shown and shown.count("/job/checkpoint-") == 5
    assert "and 72 more" in shown


def test_without_utf8_everything_is_ascii(everything):
    shown = everything(encoding="ascii")
    assert shown.isascii()
    assert "\\u" not in shown
    assert "#" in shown and "< lowest" in shown and "FAILED idle machine" in shown
    assert max(map(len, lines(shown))) <= 80


def test_what_ascii_cannot_say_does_not_stop_the_report(result, edited, printed):
    shown = printed(terminal.summary, edited(result, "diverted", ["/tmp/été.pt"]), encoding="ascii")
    assert "/tmp/?t?.pt" in shown


def test_colour_only_on_a_terminal(result, printed):
    assert "\x1b[" not in printed(terminal.summary, result)
    assert "\x1b[" in printed(terminal.summary, result, tty=True)


def test_scenarios_come_largest_speedup_first(whatif, printed):
    shown = printed(terminal.whatif_table, whatif)
    assert lines(shown)[0] == "Now: 188 samples/s, 12.8 s an epoch, bound by fetch."
    found = [float(match) for match in re.findall(r"(\d+\.\d+)×", shown)]
    assert found == sorted(found, reverse=True) and len(found) == 4
    assert "loader coordl + cache 80% + storage 30 MB/s" in shown


def test_a_note_of_several_scenarios_is_told_once(whatif, printed):
    one, other, *_ = whatif["scenarios"]
    one["notes"], other["notes"] = ["said of both", "of one alone"], ["said of both"]

    shown = printed(terminal.whatif_table, whatif)
    assert shown.count("said of both") == shown.count("of one alone") == 1
    assert "  note: said of both" in shown.splitlines()[-1]


def test_the_comparison_names_every_quantity_and_the_error(result, after, whatif, printed):
    scenario = whatif["scenarios"][2]
    scenario["speed"]["value"] *= 1.05
    shown = printed(terminal.comparison, result, after, scenario)
    for name in ("epoch time", "speed", "fetch stall", "prep stall", "compute", "storage reads"):
        assert re.search(rf"^  {name}", shown, re.MULTILINE)
    assert re.search(r"error +\+5\.0 %", shown)
    assert "Not like for like" not in shown


def test_the_comparison_says_what_else_differs(result, make_result, printed):
    other = make_result(gpu=1800, cached=0.8)
    shown = printed(terminal.comparison, result, other, None)
    assert "emulated GPU rate: 900 before, 1800 after" in shown
    assert "cached fraction: 65 % before, 80 % after" in shown
    assert "Prediction" not in shown
