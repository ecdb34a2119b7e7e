"""The built-in job and recorded step times."""

import json

import pytest

from dsanalyzer import builtin, trace
from dsanalyzer.hooks.emulate import DeviceQueue
from dsanalyzer.measure import timing

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
    with pytest.raises(builtin.NoJob, match="unknown model 'resnet9'; there are alexnet"):
        builtin.check_model("resnet9", emulated=True)


def test_pictures_are_found_by_class_and_below_train(pictures, tmp_path):
    (tmp_path / "train").symlink_to(pictures)

    direct, below = builtin.pictures(pictures), builtin.pictures(tmp_path)

    assert len(direct) == len(below) == 320
    assert {label for _, label in direct} == {0, 1}
    image, _ = builtin.Pictures(direct)[0]
    assert tuple(image.shape) == (3, 224, 224)


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
