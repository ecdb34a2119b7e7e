"""The built-in job and recorded step times."""

import json

import numpy as np
import pytest
import torch

from dsanalyzer import builtin, trace
from dsanalyzer.hooks.emulate import DeviceQueue
from dsanalyzer.measure import timing
from dsanalyzer.workloads.audio import AUDIO
from dsanalyzer.workloads.pictures import PICTURES
from dsanalyzer.workloads.text import TEXT
from dsanalyzer.workloads.workload import NoJob

BRIEF = ("--rounds", 1, "--epochs", 2, "--block", 0.3, "--samples", 320)


def written(path, document):
    path.write_text(json.dumps(document))
    return path


def test_a_folder_of_pictures_is_planned_for_without_a_script(cli, pictures):
    done = cli(
        *("profile", *BRIEF, "--gpu-rate", 2000, "-o", "r.json"),
        *("--data", pictures, "--batch-size", 16, "--workers", 2),
    )

    assert done.returncode == 0, done.stderr
    result = json.loads((cli.folder / "r.json").read_text())
    assert result["command"][1:3] == ["-m", "dsanalyzer.builtin"]
    assert result["dataset"]["measured_samples"] == 320
    assert result["loader"]["batch_size"] == 16
    assert cli.leftovers() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no training command"),
        (("--data", "nowhere"), "nowhere is no folder"),
        (("--data", "."), "no pictures"),
        (("--data", ".", "--", "true"), "leave out the command"),
        (("--gpu-trace", "nowhere.json", "--", "true"), "nowhere.json cannot be read"),
        (("--budget", "soon", "--", "true"), "write 3m"),
    ],
)
def test_a_job_that_cannot_be_made_is_said_before_anything_runs(cli, words, said):
    done = cli("profile", *words)

    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_an_unknown_model_is_named_with_those_there_are(pictures):
    with pytest.raises(NoJob, match="unknown model 'resnet9'; there are alexnet"):
        builtin.check(pictures, "resnet9", emulated=True)


def test_pictures_are_found_by_class_and_below_train(pictures, tmp_path):
    (tmp_path / "train").symlink_to(pictures)

    direct, below = PICTURES.samples(pictures), PICTURES.samples(tmp_path)

    assert len(direct) == len(below) == 320
    assert {label for _, label in direct} == {0, 1}


@pytest.fixture
def files(pictures, tmp_path):
    """A folder of each kind, in two classes."""
    soundfile = pytest.importorskip("soundfile")
    for number in range(4):
        home = tmp_path / f"class-{number % 2}"
        home.mkdir(exist_ok=True)
        wave = np.sin(np.arange(16_000 * (1 + 2 * number)) / (5 + number))
        soundfile.write(home / f"{number}.flac", wave, 16_000)
        (home / f"{number}.txt").write_text("a word and another. " * 30 * number)
        (home / f"{number}.jpg").symlink_to(sorted(pictures.glob("*/*.jpg"))[number])
    return tmp_path


@pytest.mark.parametrize("model", builtin.WORKLOADS)
def test_every_model_learns_from_its_files(files, model):
    workload = builtin.workload_of(model)
    if reason := workload.why_not(model, False):
        pytest.skip(reason)
    torch.manual_seed(1)
    data = workload.data(workload.samples(files))
    assert len(data) == 4
    batch = torch.utils.data.default_collate([data[n] for n in range(4)])
    net = workload.build(model)

    loss = workload.loss(net, batch)
    loss.backward()

    assert loss.dim() == 0 and torch.isfinite(loss)
    assert all(each.grad is not None for each in net.parameters())


def test_what_a_recording_is_too_short_for_is_silence(files):
    short = next(sample for sample in AUDIO.samples(files) if sample[0].endswith("0.flac"))
    wave, label = AUDIO.data([short])[0]

    assert wave.shape == (1, 32_000) and wave.dtype == torch.float32 and label == 0
    assert wave[0, :8_000].abs().max() > 0.5 and not wave[0, 8_100:].any()


def test_an_empty_text_is_zeros(files):
    empty = next(sample for sample in TEXT.samples(files) if sample[0].endswith("0.txt"))
    assert not TEXT.data([empty])[0].any()


@pytest.mark.slow
def test_a_language_model_shows_no_stall(cli, tmp_path):
    for number in range(400):
        (tmp_path / f"{number}.txt").write_text("a word and another. " * 200)
    done = cli(
        *("profile", "--rounds", 3, "--epochs", 3, "--samples", 128, "-o", "r.json"),
        *("--data", tmp_path, "--model", "bytes_lm", "--batch-size", 4, "--workers", 1),
    )

    assert done.returncode == 0, done.stderr
    steady = json.loads((cli.folder / "r.json").read_text())["steady"]
    for stall in ("prep_stall_s", "fetch_stall_s"):
        assert steady[stall]["verdict"] != "stall"
        assert steady[stall]["value"] < 0.03 * steady["time_s"]["value"]


def test_steps_take_the_times_of_the_trace_by_turns(monkeypatch):
    now = 0.0
    monkeypatch.setattr(timing, "clock", lambda: now)
    monkeypatch.setattr(timing, "sleep", lambda _: None)
    queue = DeviceQueue(100.0, trace=[0.01, 0.03])

    ends = []
    for _ in range(4):
        queue.submit(10)
        ends.append(queue._free_at)

    assert ends == pytest.approx([0.1, 0.4, 0.5, 0.8])


def test_a_trace_says_its_rate(tmp_path):
    found = trace.load(written(tmp_path / "t.json", {"batch_size": 8, "steps_s": [0.01, 0.03] * 5}))

    assert found.rate == pytest.approx(8 / 0.02)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([1, 2], "holds no step times; write"),
        ({"batch_size": 8, "steps_s": [0.1]}, "holds 1 steps of 8 samples; at least 10"),
        ({"batch_size": 8, "steps_s": [0.1] * 9 + [-1]}, r"a step of -1\.0 s"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_what_to_write(tmp_path, document, said):
    with pytest.raises(trace.TraceError, match=said):
        trace.load(written(tmp_path / "t.json", document))
