"""`dsanalyzer watch`: the job runs as it is, and its waits are told."""

import importlib.util
import sys

import pytest

from dsanalyzer.cli.watch import metrics
from dsanalyzer.measure.watch import Waited


def message(wait_s, wall_s, samples):
    return {"wait_s": wait_s, "wall_s": wall_s, "samples": samples, "batches": 1}


def test_a_job_runs_to_its_end_and_its_waits_are_told(cli, pictures):
    kept = cli.folder / "model.pt"

    done = cli(
        *("watch", "--prometheus", "w.prom"),
        *cli.job("train.py", pictures, "--epochs", 2, "--checkpoint", kept),
    )

    assert done.returncode == 0, done.stderr
    assert "640 samples at" in done.stdout.replace("\u00a0", " ")  # validation is left out
    assert "waiting for minibatches" in done.stdout
    assert kept.exists()  # nothing is diverted
    assert "dsanalyzer_samples_total 640" in (cli.folder / "w.prom").read_text()
    assert cli.leftovers() == []


def test_the_exit_code_is_the_jobs(cli):
    done = cli("watch", *cli.job("raises.py"))

    assert done.returncode == 1
    assert "the script's own mistake" in done.stderr


def test_a_command_without_a_loader_has_its_exit_code_and_is_told(cli):
    done = cli("watch", "--", sys.executable, "-c", "print('done')")

    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "Has it none" in done.stderr


def test_a_command_that_does_not_exist_says_so(cli):
    done = cli("watch", "--", "no-such-command")

    assert done.returncode == 2
    assert "cannot run 'no-such-command'" in done.stderr


def test_totals_are_sums_and_shares_of_them():
    total = Waited()
    total.add(message(1.0, 2.0, 100))
    total.add(message(0.0, 2.0, 300))

    assert total.share == 0.25
    assert total.rate == 100
    assert "dsanalyzer_wait_seconds_total 1\n" in metrics(total)


def test_figures_go_to_tensorboard(cli, pictures):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = cli("watch", "--tensorboard", "board", *cli.job("train.py", pictures, "--epochs", 2))

    assert done.returncode == 0, done.stderr
    events = EventAccumulator(str(cli.folder / "board")).Reload()
    shares = events.Scalars("dsanalyzer/wait_share")
    assert shares and all(0 <= each.value <= 1 for each in shares)
    assert max(each.step for each in events.Scalars("dsanalyzer/samples_per_s")) == 40


def test_without_tensorboard_it_says_what_to_install(cli):
    if importlib.util.find_spec("tensorboard"):
        pytest.skip("tensorboard is installed")
    done = cli("watch", "--tensorboard", "board", "--", "true")

    assert done.returncode == 2
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "wants the package tensorboard" in said
