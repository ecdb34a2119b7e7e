"""`dsanalyzer profile` on unedited scripts: what it measures, and what it says when it cannot."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BRIEF = ("--rounds", 1, "--epochs", 2, "--block", 0.3, "--samples", 320, "--gpu-rate", 2000)
QUICK = ("--rounds", 2, "--block", 0.4, "--samples", 320, "--gpu-rate", 2000)


def profiled(cli, *words, options=QUICK):
    done = cli("profile", *options, "-o", "r.json", *cli.job("train.py", *words))
    assert done.returncode == 0, done.stderr
    assert cli.leftovers() == []
    return json.loads((cli.folder / "r.json").read_text()), done


def checks_of(result):
    return {check["name"]: check for check in result["checks"]}


@pytest.fixture(scope="module")
def once(module_cli, on_disk):
    """One profile under LRU at 65 %, emulated at 400 samples/s: (result, what was printed, the
    checkpoint the script would overwrite)."""
    precious = module_cli.folder / "model.pt"
    precious.write_bytes(b"weeks of work")
    options = (*QUICK, "--gpu-rate", 400, "--cached", "65%", "--trace", "t.json")
    result, done = profiled(module_cli, on_disk, "--checkpoint", precious, options=options)
    return result, done.stdout, precious


def assert_proved(result, context):
    checks = checks_of(result)
    assert checks["prep passes read no storage"]["ok"], checks
    assert checks["the first fetch pass is cold"]["ok"], checks
    for epoch in (1, 2):
        assert checks[f"epoch {epoch}: bytes read are the policy's misses"]["ok"], checks
    assert result["loader"]["start_method"] == context
    assert 0.98 <= result["epochs"][0]["read_share"] <= 1.06  # spawned interpreters read too


@pytest.mark.alone
def test_phases_are_proved_for_forked_workers(once):
    result, shown, _ = once

    assert_proved(result, "fork")
    assert "emulated" in shown.lower()


@pytest.mark.slow
@pytest.mark.alone
def test_phases_are_proved_for_spawned_workers(cli, on_disk):
    result, _ = profiled(cli, on_disk, "--context", "spawn")

    assert_proved(result, "spawn")


@pytest.mark.alone
def test_the_device_rate_asked_for_is_the_ingestion_rate_measured(once):
    result, _, _ = once

    assert result["rates"]["G"]["value"] == pytest.approx(400, rel=0.05)
    assert result["emulated"]["gpu_rate"] == 400


@pytest.mark.alone
def test_lru_reads_what_the_theory_says(once):
    result, _, _ = once

    shares = [epoch["read_share"] for epoch in result["epochs"][1:]]
    assert sum(shares) / len(shares) == pytest.approx(0.717, abs=0.05)


@pytest.mark.alone
def test_delivery_is_measured_beside_ingestion(once):
    """Both are of recorded minibatches, and an emulated accelerator runs behind: nearly as fast."""
    result, shown, _ = once
    blocks = [one for one in result["passes"] if one["phase"] == "delivery"]

    assert [one["round"] for one in blocks] == [0, 1]
    assert all(one["read_bytes"] == 0 and len(one["steps_s"]) >= 20 for one in blocks)
    steady = result["steady"]
    parts = ("compute_s", "delivery_s", "prep_stall_s", "fetch_stall_s")
    whole = steady["time_s"]["value"]
    assert sum(steady[part]["value"] for part in parts) == pytest.approx(whole)
    assert steady["delivery_s"]["value"] < 0.1 * whole
    assert "delivery" in shown and "a stall counts from 2 % of the epoch" in " ".join(shown.split())


@pytest.mark.alone
def test_compute_is_measured_beside_as_much_load_as_the_loader_makes(once):
    result, shown, _ = once
    blocks = [one for one in result["passes"] if one["phase"] == "interference"]
    prep = [one for one in result["passes"] if one["phase"] == "prep"]

    assert [one["round"] for one in blocks] == [0, 1]
    for block, loading in zip(blocks, prep, strict=True):
        asked = loading["loaded"]["cpu_s"] / loading["wall_s"]
        assert 0.3 * asked < block["load_cores"] < 1.3 * asked
    steady = result["steady"]
    # An emulated accelerator leaves the cores alone: nearly nothing of the epoch.
    assert 0 <= steady["interference_s"]["value"] < 0.1 * steady["time_s"]["value"]
    assert steady["load_cores"] > 0 and "kept busy as the loader does" in " ".join(shown.split())


@pytest.mark.alone
def test_a_few_steps_of_each_phase_are_kept_with_what_workers_did(once):
    result, _, _ = once
    for phase in ("prep", "fetch"):
        spans = [one for one in result["timeline"] if one["phase"] == phase]
        assert {"training loop", "worker 0", "worker 1"} <= {one["track"] for one in spans}
        assert {"step", "samples"} <= {one["what"] for one in spans}


@pytest.mark.alone
def test_a_trace_has_each_minibatch_of_each_phase(once):
    result, _, precious = once
    events = json.loads((precious.parent / "t.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]

    run = 1
    for one in result["passes"]:
        run = 2 if one["phase"] == "fetch" else run
        name = f"{one['phase']} {one['round']}"
        loop = [e for e in spans if e["pid"] == run and e["args"].get("phase") == name]
        waits = [e for e in loop if e["name"] == "wait"]
        assert [e["dur"] / 1e6 for e in waits] == pytest.approx(one["waits_s"])
    workers = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"worker 0", "worker 1"} <= workers
    loaded = [e for e in spans if e["name"] == "minibatch"]
    assert sum(e["args"]["samples"] for e in loaded) >= 320 * (2 + 2 + 3)  # prep, drain, fetch
    assert "at_s" not in result["passes"][0]


@pytest.mark.alone
def test_a_checkpoint_is_diverted_and_listed(once):
    jsonschema = pytest.importorskip("jsonschema")
    from dsanalyzer.report import load

    result, shown, precious = once

    assert precious.read_bytes() == b"weeks of work"
    assert result["diverted"] == [str(precious)]
    assert precious.with_name("log-of-it.txt").exists()  # what run 1 made, run 2 makes again
    assert "model.pt" in "".join(shown.split())  # the path may be wrapped
    jsonschema.validate(result, load.schema("result"))


def test_never_evict_reads_exactly_what_does_not_fit(cli, on_disk):
    options = (*BRIEF, "--policy", "never-evict", "--cached", "65%")
    result, _ = profiled(cli, on_disk, options=options)

    assert result["epochs"][1]["read_share"] == pytest.approx(0.35, abs=0.01)


@pytest.mark.parametrize(
    "shape",
    [
        ["--workers", 0],
        pytest.param(["--persistent"], marks=pytest.mark.slow),
        pytest.param(["--unlisted"], marks=pytest.mark.slow),
        pytest.param(["--one-cycle", "--epochs", 1], marks=pytest.mark.slow),
        ["--steps", 7, "--epochs", 400, "--persistent"],
        pytest.param(["--steps", 7, "--epochs", 400], marks=pytest.mark.slow),
    ],
    ids=lambda words: "-".join(str(word).strip("-") for word in words),
)
def test_common_shapes_of_a_training_loop_are_measured(cli, on_disk, shape):
    result, _ = profiled(cli, on_disk, *shape, options=BRIEF)

    assert checks_of(result)["the first fetch pass is cold"]["ok"]
    assert result["dataset"]["measured_samples"] == 320


@pytest.mark.alone
def test_pacing_stands_in_where_there_is_no_control_group(cli, on_disk, monkeypatch):
    monkeypatch.setenv("DSANALYZER_NO_CGROUP", "1")
    result, _ = profiled(cli, on_disk, options=(*BRIEF, "--storage", "5MB/s"))

    assert result["options"]["storage_method"] == "pacing"
    cold = result["epochs"][0]
    assert cold["storage_bytes"] / cold["time_s"]["value"] == pytest.approx(5e6, rel=0.15)
    assert any("pacing" in note for note in result["notes"])


# -- bad input -----------------------------------------------------------------------------------


def test_a_script_that_raises_shows_its_own_traceback_and_exits_2(cli):
    done = cli("profile", *cli.job("raises.py"))

    assert done.returncode == 2
    assert "RuntimeError: the script's own mistake" in done.stderr
    assert "exit code 1" in done.stderr
    assert cli.leftovers() == []


@pytest.mark.parametrize(
    ("when", "phase", "patience"),
    [("before", "starting the job", "8s"), ("within", "learning the training loop", "15s")],
)
def test_a_job_that_hangs_is_ended_and_where_is_said(cli, on_disk, when, phase, patience):
    job = cli.job("bad.py", on_disk, "hangs", when)
    done = cli("profile", "--patience", patience, *BRIEF, *job)

    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "nothing has come from the job" in said and phase in said and "--patience" in said
    assert cli.leftovers() == []


def test_a_job_that_executes_itself_anew_is_measured(cli, on_disk):
    done = cli("profile", *BRIEF, "-o", "r.json", *cli.job("bad.py", on_disk, "again"))

    assert done.returncode == 0, done.stderr
    assert cli.leftovers() == []


@pytest.mark.parametrize(
    ("mistake", "advice"), [("asks", "Give its answers as arguments"), ("gpu", "--gpu-rate N")]
)
def test_a_job_that_wants_what_is_not_there_is_told_what_to_do(cli, on_disk, mistake, advice):
    import torch

    if mistake == "gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = cli("profile", *BRIEF, *cli.job("bad.py", on_disk, mistake))

    assert done.returncode == 2
    assert advice in " ".join(done.stderr.split())


def test_a_script_without_a_loader_says_so_whatever_the_temporary_folder(cli):
    cli.scratch /= "/".join(["a temporary folder"] * 8)  # longer than a socket's address
    cli.scratch.mkdir(parents=True)
    done = cli("profile", *cli.job("no_loader.py"))

    assert done.returncode == 2
    assert "without iterating a torch DataLoader" in done.stderr


def test_a_command_that_does_not_exist_says_so(cli):
    done = cli("profile", "--", "no-such-command")

    assert done.returncode == 2
    assert "cannot run 'no-such-command'" in done.stderr


def test_python_without_environment_escapes_the_hooks_and_that_is_said(cli, on_disk):
    job = cli.job("train.py", on_disk, "--epochs", 1)
    done = cli("profile", job[0], job[1], "-E", *job[2:])

    assert done.returncode == 2
    assert "-I, -E or -S" in " ".join(done.stderr.split())


def test_a_missing_and_an_empty_folder_are_the_scripts_own_errors(cli, tmp_path):
    done = cli("profile", *cli.job("train.py", tmp_path / "nowhere"))

    assert done.returncode == 2
    assert "num_samples" in done.stderr


def test_a_truncated_picture_ends_the_profile_with_the_traceback(cli, pictures):
    folder = cli.folder / "data" / "class0"
    folder.mkdir(parents=True)
    for path in sorted(pictures.glob("class0/*.jpg"))[:64]:
        (folder / path.name).write_bytes(path.read_bytes())
    bad = folder / "0042.jpg"
    bad.write_bytes(bad.read_bytes()[:500])

    done = cli("profile", *BRIEF, *cli.job("train.py", folder.parent))

    assert done.returncode == 2
    assert "truncated" in done.stderr.lower()
    assert cli.leftovers() == []


def test_a_result_is_not_overwritten_without_force(cli):
    (cli.folder / "r.json").write_text("mine")

    done = cli("profile", "-o", "r.json", *cli.job("no_loader.py"))

    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (cli.folder / "r.json").read_text() == "mine"


@pytest.mark.parametrize(
    "phase", ["starting the job", "ingestion:", "prep: pass", "storage:", "fetch: pass"]
)
def test_ctrl_c_in_any_phase_leaves_nothing(cli, on_disk, interrupt, phase):
    process = cli.start("profile", *BRIEF, "--storage", "20MB/s", *cli.job("train.py", on_disk))

    code, said = interrupt(process, lambda seen: phase in seen)

    assert code == 130, said
    assert "Interrupted" in said
    assert cli.leftovers() == []


def test_a_killed_tool_takes_its_job_with_it_and_the_next_one_sweeps(
    cli, on_disk, interrupt, wait_for
):
    process = cli.start("profile", *BRIEF, "--storage", "20MB/s", *cli.job("train.py", on_disk))
    interrupt(process, lambda seen: "fetch: pass" in seen, signal.SIGKILL)

    wait_for(lambda: not [p for p in cli.leftovers() if "train.py" in p])
    cli("profile", *cli.job("no_loader.py"))
    assert cli.leftovers() == []


def test_a_cgroup_of_a_live_owner_is_left_alone():
    from dsanalyzer.measure import throttle

    root = Path("/sys/fs/cgroup/blkio")
    if not os.access(root, os.W_OK):
        pytest.skip("no writable blkio control group here")
    mine = root / f"dsanalyzer-{os.getpid()}"
    mine.mkdir()
    try:
        throttle.reap_stale()
        assert mine.exists()
    finally:
        mine.rmdir()


def test_a_throttle_closed_over_dying_processes_leaves_no_cgroup(on_disk):
    from dsanalyzer.job import bound_to_tool
    from dsanalyzer.measure.throttle import ReadThrottle

    dying = "import os; memory = bytearray(1 << 28); print(flush=True); os.kill(os.getpid(), 9)"
    for _ in range(5):
        with ReadThrottle(str(on_disk), 20e6) as throttle:
            if throttle.method == "pacing":
                pytest.skip("no writable blkio control group here")
            children = [
                subprocess.Popen(
                    [sys.executable, "-c", dying],
                    stdout=subprocess.PIPE,
                    preexec_fn=bound_to_tool(throttle),
                )
                for _ in range(3)
            ]
            for child in children:
                child.stdout.readline()
        assert not Path(f"/sys/fs/cgroup/blkio/dsanalyzer-{os.getpid()}").exists()
        for child in children:
            child.communicate()


@pytest.mark.parametrize("loader", ["torch", "coordl"])
def test_packed_samples_are_refused_with_the_reason(cli, on_disk, loader):
    """Parts of one shard: a page cache by whole files says nothing of them, in either loader."""
    from coordl.packing import Order, list_source, pack

    pack(Order(list_source(on_disk)), cli.folder / "packed")
    done = cli("profile", *BRIEF, *cli.job("train.py", cli.folder / "packed", "--packed", loader))

    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "320 of 320 lie in" in said and "shard-00000.cds" in said.replace(" ", "")
    assert "the folder it was packed from" in said
    assert cli.leftovers() == []


def test_a_few_samples_of_one_file_are_measured():
    from dsanalyzer.hooks import subset

    sizes = {"a": 100, "b": 100}
    subset._check_files_are_whole([["a"], ["a"], ["b"], ["b"]], sizes)
    with pytest.raises(subset.NotMeasurable, match="9 of 10 lie in a"):
        subset._check_files_are_whole([["a"]] * 9 + [["b"]], sizes)


def test_a_split_that_differs_between_the_runs_is_refused_with_the_reason(cli, on_disk):
    done = cli("profile", *BRIEF, *cli.job("train.py", on_disk, "--split"))

    assert done.returncode == 2
    assert "Seed what draws the samples" in " ".join(done.stderr.split())


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(cli):
    (cli.folder / "folder").mkdir()

    for words in (["-o", "folder"], ["-o", "/proc/x.json"], ["-o", "a", "--html", "a"]):
        done = cli("profile", *words, "-f", *cli.job("raises.py"))
        assert done.returncode == 2
        assert "own mistake" not in done.stderr


@pytest.mark.parametrize("option", ["--cached", "--storage", "--budget", "--patience", "--sweep"])
def test_a_value_that_cannot_be_read_is_one_of_its_option(cli, option):
    done = cli("profile", option, "much", *cli.job("raises.py"))

    assert done.returncode == 2
    assert f"Invalid value for '{option}': 'much'" in " ".join(done.stderr.split())


@pytest.mark.parametrize("words", [("--workers", 8), ("--batch-size", 4), ("--model", "resnet50")])
def test_what_the_built_in_job_takes_is_refused_beside_a_script(cli, words):
    done = cli("profile", *words, *cli.job("raises.py"))

    assert done.returncode == 2
    assert f"{words[0]} is of the built-in job" in " ".join(done.stderr.split())


@pytest.mark.parametrize("rate", ["nan", "inf", "-1", "0"])
def test_a_rate_that_is_none_is_refused(cli, rate):
    done = cli("profile", "--gpu-rate", rate, *cli.job("raises.py"))

    assert done.returncode == 2
    assert "gpu_rate" in done.stderr
