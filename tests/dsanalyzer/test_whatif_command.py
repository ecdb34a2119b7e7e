"""`dsanalyzer whatif` as a user types it: bad input is a sentence and exit code 2."""

import json
from pathlib import Path

import pytest

from dsanalyzer.report import load

RATES = {
    "schema": "coordl.rates/1",
    "prep_rate": {"value": 2000.0, "low": 1900.0, "high": 2100.0},
    "threads": 4,
}


def rate(value):
    return {"value": value, "low": value, "high": value, "unit": "samples/s", "how": "test"}


@pytest.fixture
def result(cli, monkeypatch):
    """A profile with just what whatif reads; the schema has tests of its own."""
    seconds = {"value": 1.0, "low": 0.9, "high": 1.1}
    document = {
        "rates": {"G": rate(900), "P": rate(500), "S": rate(200), "C": rate(1e6), "F": rate(280)},
        "options": {"policy": "lru", "cached_fraction": 0.65},
        "loader": {"holds_cache": False, "num_workers": 2, "batch_size": 32},
        "machine": {"cores": 2, "gpu": "some GPU"},
        "dataset": {"samples": 4000, "mean_item_bytes": 1e5, "files": []},
        "epochs": [{"epoch": 1, "read_share": 0.72}],
        "steady": {"speed": seconds | {"value": 250.0}, "bound_by": "fetch"},
        "model": {"error": 0.1},
        "checks": [],
        "storage": [
            {"queue_depth": 1, "samples_per_s": 200, "low": 190, "high": 210, "bytes_per_s": 2e7}
        ],
        "emulated": None,
    }
    path = cli.folder / "r.json"
    path.write_text(json.dumps(document))
    return document


@pytest.fixture
def ask(result, monkeypatch, cli):
    """The command in this process, with the schema check of the result left out."""
    from typer.testing import CliRunner

    from dsanalyzer.cli import app

    monkeypatch.chdir(cli.folder)
    monkeypatch.setattr(load, "load_result", lambda path: json.loads(Path(path).read_text()))
    return lambda *words: CliRunner().invoke(app, ["whatif", *words])


def test_each_option_alone_and_all_together(ask, cli):
    done = ask("r.json", "--cache", "80%", "--cores", "8", "-o", "w.json")

    assert done.exit_code == 0, done.output
    names = [s["name"] for s in json.loads((cli.folder / "w.json").read_text())["scenarios"]]
    assert names == ["cache 80%", "8 cores", "cache 80% + 8 cores"]


def test_coordl_is_predicted_from_the_rates_it_wrote(ask, cli):
    (cli.folder / "rates.json").write_text(json.dumps(RATES))

    done = ask("r.json", "--loader", "coordl", "--rates", "rates.json", "-o", "w.json")

    assert done.exit_code == 0, done.output
    (scenario,) = json.loads((cli.folder / "w.json").read_text())["scenarios"]
    assert scenario["speed"]["value"] == pytest.approx(200 / 0.35, rel=0.05)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cache", "200%"], "'--cache': '200%' is not between 0% and 100%"),
        (["--storage", "fast"], "'--storage': 'fast' is not a storage rate"),
        (["--gpu-speedup", "0x"], "'--gpu-speedup': '0x' is not a factor"),
        (["--loader", "dali"], "coordl is the one"),
        (["--form", "folded"], "unknown form 'folded'"),
        (["--policy", "fifo"], "unknown cache policy 'fifo'"),
        (["--jobs", "2", "--servers", "2"], "one after the other"),
        (["--network", "10Gbit/s"], "add --servers N"),
        (["--servers", "2", "--network", "fast"], "'--network': 'fast' is not a network rate"),
        (["--prices", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--loader", "coordl", "--rates", "r.json"], "not what `coordl rates` writes"),
    ],
)
def test_a_bad_value_is_a_sentence_and_exit_code_2(ask, words, said):
    done = ask("r.json", *words)

    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_file_that_is_no_result_is_a_sentence_and_exit_code_2(cli):
    (cli.folder / "notes.json").write_text('{"schema": "something else"}')

    for name in ("notes.json", "nowhere.json"):
        done = cli("whatif", name)
        assert done.returncode == 2
        assert name in done.stderr
        assert "Traceback" not in done.stderr


def test_jobs_and_servers_are_answered_without_and_with_coordination(ask, cli):
    done = ask("r.json", "--jobs", "4", "-o", "w.json")
    assert done.exit_code == 0, done.output
    names = [s["name"] for s in json.loads((cli.folder / "w.json").read_text())["scenarios"]]
    assert names == ["4 jobs", "4 jobs, coordinated"]

    words = ("--servers", "2", "--network", "10Gbit/s", "--shared-storage")
    done = ask("r.json", *words, "-o", "w.json", "-f")
    assert done.exit_code == 0, done.output
    first, second = json.loads((cli.folder / "w.json").read_text())["scenarios"]
    assert second["name"] == "never-evict + 2 servers, partitioned"
    assert first["changes"]["network_bytes_per_s"] == 1.25e9
    assert "one storage for all" in " ".join(done.output.split())


def test_rates_are_taken_by_form(ask, cli):
    packed = {**RATES, "form": "packed", "prep_rate": {"value": 9000, "low": 8900, "high": 9100}}
    (cli.folder / "packed.json").write_text(json.dumps(packed))

    done = ask("r.json", "--form", "packed", "--rates", "packed.json", "-o", "w.json")

    assert done.exit_code == 0, done.output
    (scenario,) = json.loads((cli.folder / "w.json").read_text())["scenarios"]
    assert scenario["name"] == "coordl packed"
    assert scenario["cached_fraction"] == pytest.approx(0.65 / 1.5)
    twice = ask("r.json", "--form", "packed", *["--rates", "packed.json"] * 2)
    assert "give one per form" in " ".join(twice.output.split())


def test_a_price_file_ranks_what_it_offers_within_80_columns(ask, cli):
    (cli.folder / "p.toml").write_text("[cache]\nper_GB = 1\n[cores]\neach = 2")

    done = ask("r.json", "--prices", "p.toml", "-o", "w.json")

    assert done.exit_code == 0, done.output
    assert "Best fixes" in done.output
    assert max(map(len, done.output.splitlines())) <= 80
    assert json.loads((cli.folder / "w.json").read_text())["fixes"]


def test_help_shows_an_example_of_a_price_file():
    from typer.testing import CliRunner

    from dsanalyzer.cli import app

    said = CliRunner().invoke(app, ["whatif", "--help"]).output
    assert "--prices cloud.toml" in said and "per_GB = 0.004" in said
