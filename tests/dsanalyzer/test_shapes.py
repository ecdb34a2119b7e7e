"""Training loops of every common shape: measured, or refused with the reason and what to do."""

import importlib.util
import json
import sys

import pytest

BRIEF = ("--rounds", 1, "--epochs", 2, "--block", 0.3, "--samples", 160, "--gpu-rate", 2000)


def profiled(cli, *job):
    done = cli("profile", *BRIEF, "-o", "r.json", *job)
    assert done.returncode == 0, done.stderr
    assert cli.leftovers() == []
    return json.loads((cli.folder / "r.json").read_text())


def refused(cli, *job):
    done = cli("profile", *BRIEF, "-o", "r.json", *job)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert cli.leftovers() == []
    return " ".join(done.stderr.split())


def proved(result):
    checks = {check["name"]: check for check in result["checks"]}
    for name in ("prep passes read no storage", "the first fetch pass is cold"):
        assert checks[name]["ok"], checks
    assert "replaced by a device queue" in result["emulated"]["how"]
    return result


@pytest.mark.parametrize(
    "shape", ["stream", pytest.param("stream-of-minibatches", marks=pytest.mark.slow)]
)
def test_a_stream_is_followed_once_and_then_measured(cli, on_disk, shape):
    result = proved(profiled(cli, *cli.job("shapes.py", shape, on_disk)))

    # What led in before the clock starts is of the stream too.
    assert 120 <= result["dataset"]["measured_samples"] <= 160
    assert result["loader"]["num_workers"] == 2
    assert all(p["samples"] >= 120 for p in result["passes"] if p["phase"] == "fetch")


@pytest.mark.parametrize("shape", ["lists", "buckets", "generator"])
def test_samples_are_counted_however_minibatches_are_made(cli, on_disk, shape):
    result = proved(profiled(cli, *cli.job("shapes.py", shape, on_disk)))

    assert result["loader"]["batch_size"] == 16
    loading = [p for p in result["passes"] if p["phase"] in ("prep", "drain", "fetch")]
    assert {(p["samples"], len(p["steps_s"])) for p in loading} == {(160, 10)}
    assert all(
        p["samples"] == 16 * len(p["steps_s"])
        for p in result["passes"]
        if p["phase"] in ("ingestion", "delivery")
    )


def test_every_file_of_a_sample_is_cold_and_counted(cli, on_disk):
    result = proved(profiled(cli, *cli.job("shapes.py", "masks", on_disk)))

    assert result["dataset"]["measured_samples"] == 160
    assert len(result["dataset"]["files"]) == 320


def test_an_epoch_is_what_the_sampler_draws(cli, on_disk):
    result = proved(profiled(cli, *cli.job("shapes.py", "part", on_disk)))

    assert result["dataset"]["samples"] == 200


def test_a_loader_that_keeps_one_iterator_is_refused(cli, on_disk):
    said = refused(cli, *cli.job("shapes.py", "lasting", on_disk))

    assert "Lasting goes on with an iterator it has kept" in said
    assert "persistent_workers=True" in said


def test_a_job_that_goes_on_without_training_is_ended(cli, on_disk):
    said = refused(cli, "--patience", "10s", *cli.job("shapes.py", "endless", on_disk))

    assert "after 10 s of minibatches no torch optimizer has stepped" in said


def test_a_loader_that_is_not_torchs_is_measured_once_it_is_wrapped(cli, on_disk):
    result = proved(profiled(cli, *cli.job("shapes.py", "wrapped", on_disk)))

    assert result["loader"]["class"].endswith("OwnLoader")
    assert result["dataset"]["measured_samples"] == 160


def test_samples_that_lie_many_in_a_file_are_refused(cli, on_disk):
    said = refused(cli, *cli.job("shapes.py", "shards", on_disk))

    assert "160 samples in 1 files" in said and "Profile the same data as single files" in said
    # What could be measured is kept, marked as a part.
    assert "A partial result is in r.partial.json" in said and "minibatches from memory:" in said
    assert not (cli.folder / "r.json").exists()
    part = json.loads((cli.folder / "r.partial.json").read_text())
    assert part["schema"] == "dsanalyzer.partial/1" and "160 samples in 1 files" in part["reason"]
    assert 0 < part["rates"]["G"]["value"] < 2200
    shown = cli("report", "r.partial.json")
    assert shown.returncode == 2 and "a partial result" in " ".join(shown.stderr.split())


def test_two_loaders_at_once_are_refused(cli, on_disk):
    said = refused(cli, *cli.job("shapes.py", "two-at-once", on_disk))

    assert "trains from two loaders at once" in said and "StackDataset" in said


@pytest.mark.skipif(
    importlib.util.find_spec("torchdata") is None, reason="torchdata is not installed"
)
def test_torchdatas_stateful_loader_is_measured(cli, on_disk):
    result = proved(profiled(cli, *cli.job("shapes.py", "stateful", on_disk)))

    assert result["loader"]["class"].endswith("StatefulDataLoader")


@pytest.mark.slow
def test_workers_of_a_fork_server_are_measured(cli, on_disk):
    result = proved(profiled(cli, *cli.job("train.py", on_disk, "--context", "forkserver")))

    assert result["loader"]["start_method"] == "forkserver"


def test_streams_of_ranks_are_refused_with_what_to_do(cli, on_disk):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    job = cli.job("shapes.py", "stream", on_disk)[2:]
    done = cli("profile", *BRIEF[:-2], "-o", "r.json", "--", *torchrun, *job)

    assert done.returncode == 2, done.stdout
    said = " ".join(done.stderr.split())
    assert "ranks read streams" in said and "without the launcher" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "job"),
    [
        ("accelerate", "with_accelerate.py"),
        ("lightning", "with_lightning.py"),
        ("timm", "with_timm.py"),
        ("transformers", "with_trainer.py"),
    ],
)
def test_frameworks_that_own_the_loader_or_the_loop_are_measured(cli, on_disk, package, job):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")

    result = proved(profiled(cli, *cli.job(job, on_disk)))
    assert result["loader"]["batch_size"] == 16


def test_what_can_be_iterated_only_once_is_not_wrapped():
    import dsanalyzer

    with pytest.raises(TypeError, match="can be iterated only once; wrap what makes it"):
        dsanalyzer.wrap(iter([1, 2]))
    with pytest.raises(TypeError, match="int is not iterable"):
        dsanalyzer.wrap(3)


def test_outside_a_profile_a_wrapped_loader_is_what_it_was():
    import dsanalyzer

    wrapped = dsanalyzer.wrap([1, 2, 3])

    assert list(wrapped) == [1, 2, 3] and list(wrapped) == [1, 2, 3]
    assert len(wrapped) == 3
    assert wrapped.index(2) == 1
