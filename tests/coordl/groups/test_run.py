"""`coordl run`: jobs of a group on this machine, their logs and how they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from group_jobs import PICTURES

from coordl import cli_run

SAYS = "import os, sys; print(os.environ['COORDL_GROUP'], os.environ['COORDL_JOB'], sys.argv[1])"


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "coordl.cli", "run", *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_each_job_has_its_number_their_group_and_a_log(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    options = ("--jobs", "3", "--group", "sweep", "--logs", str(logs), "--")
    code, out, err = run(*options, sys.executable, "-c", SAYS, "lr-{job}")
    assert code == 0 and "3 jobs in group sweep" in err
    assert [line.split()[0] for line in out.splitlines()] == ["job", "0", "1", "2"]
    said = [(logs / f"job-{number}.log").read_text() for number in range(3)]
    assert said == [f"sweep {number} lr-{number}\n" for number in range(3)]
    code, _, err = run(*options, "true")
    assert code == 2 and "job-0.log is there already" in err
    assert run("--force", *options, "true")[0] == 0


def test_one_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    script = "import os; os.environ['COORDL_JOB'] == '1' and os.kill(os.getpid(), 9); print('done')"
    code, out, _ = run("-j", "3", "--logs", str(tmp_path), "--", sys.executable, "-c", script)
    assert code == 1 and out.count("exit 0") == 2 and out.count("signal 9") == 1
    assert (tmp_path / "job-2.log").read_text() == "done\n"
    code, _, err = run("--logs", str(tmp_path / "b"), "--", "no-such-command")
    assert code == 2 and "coordl: no-such-command: No such file" in err


def test_what_cannot_be_run_is_told_and_leaves_no_log(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    code, _, err = run("--logs", str(logs), "--", "no-such-{job}")
    assert code == 2 and "coordl: no-such-0: No such file" in err
    assert list(logs.iterdir()) == []
    code, _, err = run("--group", "a b", "--logs", str(logs), "--", "true")
    assert code == 2 and "coordl: bad group name 'a b'" in err
    (tmp_path / "file").write_text("")
    code, _, err = run("--logs", str(tmp_path / "file"), "--", "true")
    assert code == 2 and f"coordl: --logs {tmp_path / 'file'}: File exists" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_job_outlives_a_run_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    process = start("-j", "2", "--logs", str(tmp_path), "--", "sleep", "100")
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and out.count(f"signal {number}") == 2


def test_a_signal_while_a_job_is_being_started_ends_that_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_one, started = cli_run._start, []

    def start_and_be_ended(*given: Any) -> Any:
        started.append(start_one(*given))
        if len(started) == 2:  # before it is known
            os.kill(os.getpid(), signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr(cli_run, "_start", start_and_be_ended)
    with pytest.raises(typer.Exit) as ended:
        cli_run.run(["sleep", "100"], jobs=3, logs=tmp_path)
    assert ended.value.exit_code == 1
    assert [job.code for job in started] == [-signal.SIGTERM] * 2  # and the third was not begun


@pytest.mark.slow
def test_an_unchanged_script_shares_in_a_group(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys, json\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from group_jobs import loader, prepared\nfrom pathlib import Path\n"
        f"one = loader(Path({str(folder)!r}), 4, group=None, seed=None)\n"
        "for _ in range(2): list(one)\n"
        "print(prepared(one.stats()))\n"
        "import time; time.sleep(10)\n"  # until the others have begun
    )
    logs = tmp_path / "logs"
    code, out, _ = run("-j", "3", "--logs", str(logs), "--", sys.executable, str(script))
    assert code == 0
    assert [line.split()[-2][-1] for line in out.splitlines()[1:4]] == ["%"] * 3
    assert out.splitlines()[-1] == "67% of fetch and prep saved (as last seen)"
    made = [int((logs / f"job-{number}.log").read_text()) for number in range(3)]
    assert sum(made) == 2 * PICTURES
