"""dsanalyzer report and dsanalyzer compare, as typed."""

from __future__ import annotations

import json
from importlib import metadata
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from dsanalyzer.cli import app


@pytest.fixture
def files(tmp_path, result, after, whatif):
    """A folder with stock.json, coordl.json and whatif.json."""
    named = {"stock": result, "coordl": after, "whatif": whatif}
    for name, document in named.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return tmp_path


def run(*words) -> object:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "80"})


def test_report_writes_beside_the_result_and_ends_with_the_path(files):
    done = run("report", files / "stock.json")
    assert done.exit_code == 0
    assert done.stdout == f"{files / 'stock.html'}\n"
    assert "Where an epoch goes" in (files / "stock.html").read_text()


def test_report_takes_a_name_and_a_whatif(files):
    done = run(
        "report", files / "stock.json", "-o", files / "x.html", "--whatif", files / "whatif.json"
    )
    assert done.exit_code == 0
    assert "What would fix it" in (files / "x.html").read_text()


def test_report_does_not_overwrite_unless_told_to(files):
    page = files / "stock.html"
    page.write_text("mine")
    done = run("report", files / "stock.json")
    assert done.exit_code == 2
    assert "exists.\nReplace it with --force" in done.stderr
    assert done.stdout == "" and page.read_text() == "mine"
    assert run("report", files / "stock.json", "--force").exit_code == 0
    assert page.read_text() != "mine"


def test_report_never_writes_over_what_it_reads(files):
    before = (files / "stock.json").read_text()
    done = run("report", files / "stock.json", "-o", files / "stock.json", "--force")
    assert done.exit_code == 2 and "is read from" in done.stderr
    assert (files / "stock.json").read_text() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.json"], "no such file"),
        (["whatif.json"], "holds dsanalyzer.whatif"),
        (["stock.json", "--whatif", "coordl.json"], "holds dsanalyzer.result"),
        (["stock.json", "-o", "no/where.html"], "no such folder"),
        (["stock.json", "-o", "."], "is a folder"),
    ],
)
def test_report_says_what_it_cannot_do_and_exits_2(files, monkeypatch, words, message):
    monkeypatch.chdir(files)
    done = run("report", *words)
    assert done.exit_code == 2
    assert message in done.stderr and "Traceback" not in done.output
    assert not list(files.glob("**/*.html"))


def test_compare_prints_the_table(files):
    done = run("compare", files / "stock.json", files / "coordl.json")
    assert done.exit_code == 0
    assert "An epoch went from 12.8 s to 6.47 s: 1.97× faster." in done.stdout


def test_compare_holds_the_named_prediction_to_account(files):
    words = [
        "compare",
        files / "stock.json",
        files / "coordl.json",
        "--predicted",
        files / "whatif.json",
    ]
    assert run(*words).exit_code == 2  # four scenarios: which one was carried out?
    done = run(*words, "--scenario", "loader coordl", "--fail-above", "5")
    assert done.exit_code == 0
    assert "Prediction  loader coordl" in done.stdout
    done = run(*words, "--scenario", "cache 80%", "--fail-above", "5")
    assert done.exit_code == 1
    assert "prediction error: −31" in done.stderr


def test_compare_fails_only_above_the_threshold(files):
    slower = ["compare", files / "coordl.json", files / "stock.json"]
    assert run(*slower).exit_code == 0
    assert run(*slower, "--fail-above", "98").exit_code == 0
    done = run(*slower, "--fail-above", "97")
    assert done.exit_code == 1
    assert "epoch time per sample: +97" in done.stderr
    assert (
        run("compare", files / "stock.json", files / "coordl.json", "--fail-above", "0").exit_code
        == 0
    )


def test_compare_writes_a_page_and_ends_with_its_path(files):
    words = ["compare", files / "stock.json", files / "coordl.json", "--html", files / "c.html"]
    done = run(*words)
    assert done.exit_code == 0
    assert done.stdout.endswith(f"{files / 'c.html'}\n")
    assert "Before and after" in (files / "c.html").read_text()
    assert run(*words).exit_code == 2
    assert run(*words, "-f").exit_code == 0


def test_a_scenario_without_predictions_is_refused(files):
    done = run("compare", files / "stock.json", files / "coordl.json", "--scenario", "x")
    assert done.exit_code == 2 and "--predicted" in done.stderr


@pytest.mark.parametrize("command", ["profile", "whatif", "report", "compare"])
def test_help_has_examples_in_80_columns(command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert f" dsanalyzer {command} " in done.stdout.split("Examples:")[1]
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", [(), ("profile",), ("compare",)])
def test_help_shows_flags_without_a_type(command):
    shown = run(*command, "--help").stdout
    assert "--help" in shown and "bool" not in shown


def test_paragraphs_of_a_help_text_are_not_broken_twice():
    """Lines of the source once ended lines of the output: some of two words, some of seventy."""
    printed = [line.strip() for line in run("profile", "--help").stdout.splitlines()]
    first = next(n for n, line in enumerate(printed) if line.startswith("The command runs twice"))
    lines = printed[first : printed.index("", first)]
    fits = [len(line) + 1 + len(after.split()[0]) <= 78 for line, after in pairwise(lines)]
    assert fits and not any(fits)


def test_version_is_the_distributions():
    done = run("--version")
    expected = metadata.version("data-stall-toolkit")
    assert (done.exit_code, done.stdout) == (0, f"dsanalyzer {expected}\n")
