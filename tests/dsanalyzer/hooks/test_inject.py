"""What the hooks do inside a job's Python, without a tool at the other end."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dsanalyzer.job import environment


@pytest.fixture
def run(tmp_path):
    """Runs code in a fresh Python under the hooks; returns its stdout."""
    run_dir = tmp_path / "run"
    diverted = run_dir / "diverted"
    diverted.mkdir(parents=True)
    config = {
        "kind": "rates",
        "socket": str(run_dir / "nobody"),
        "divert": True,
        "divert_dir": str(diverted),
    }

    def call(code: str, **variables: str) -> str:
        (diverted / "now").touch()
        config["started_ns"] = (diverted / "now").stat().st_ctime_ns
        (run_dir / "config.json").write_text(json.dumps(config))
        env = {**environment(run_dir), **variables}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_an_existing_sitecustomize_still_runs(run, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("print('mine too')")
    path = os.pathsep.join([environment(tmp_path)["PYTHONPATH"], str(own)])

    assert "mine too" in run("pass", PYTHONPATH=path)


def test_nothing_of_the_tool_is_imported_before_torch_is(run):
    out = run("import sys; print('torch' in sys.modules, 'numpy' in sys.modules)")

    assert out.split() == ["False", "False"]


@pytest.mark.parametrize(
    "write",
    [
        "import torch; torch.save({'a': 1}, PATH)",
        "import torch; torch.save({'a': 1}, open(PATH, 'wb'))",
        "import pathlib; pathlib.Path(PATH).write_bytes(b'new')",
        "import numpy; numpy.save(PATH, numpy.zeros(3))",
        "import os; os.close(os.open(PATH, os.O_WRONLY | os.O_TRUNC))",
        "f = open(PATH + '.tmp', 'wb'); f.close(); import os; os.replace(PATH + '.tmp', PATH)",
        "import os, tempfile; f = tempfile.NamedTemporaryFile(dir=os.path.dirname(PATH),"
        " delete=False); f.close(); os.replace(f.name, PATH)",
        "f = open(PATH, 'r+b'); f.write(b'new'); f.close()",
        "f = open(PATH, 'ab'); f.write(b'new'); f.close()",
        "import os, torch; os.unlink(PATH); torch.save(1, PATH)",
        "import os; d = os.path.dirname(PATH); os.mkdir(d + '.tmp'); os.rename(d, d + '.old')",
        "import torch, os; torch.save(1, PATH + '.tmp'); os.replace(PATH + '.tmp', PATH)",
        "import torch, shutil; torch.save(1, 'last.pt'); shutil.copyfile('last.pt', PATH)",
        "import torch, shutil; torch.save(1, 'last.pt'); shutil.move('last.pt', PATH)",
        "import torch, pathlib; torch.save(1, 'x.tmp'); pathlib.Path('x.tmp').rename(PATH)",
        "import os; os.rename(PATH, PATH + '.old.pt')",
        "import shutil; open('other.pt', 'wb').write(b'x'); shutil.copy('other.pt', PATH)",
        "import os; os.remove(PATH)",
        "import os, shutil; shutil.rmtree(os.path.dirname(PATH), ignore_errors=True)",
        "import torch, os; torch.save(1, PATH); os.remove(PATH)",
        "import torch, pathlib; torch.save(1, PATH); pathlib.Path(PATH).unlink()",
    ],
)
def test_a_checkpoint_is_never_touched_however_it_is_written(run, tmp_path, write):
    precious = tmp_path / "checkpoints" / "model.pt"
    precious.parent.mkdir()
    precious.write_bytes(b"weeks of work")

    run(f"PATH = {str(precious)!r}; {write}")

    assert precious.read_bytes() == b"weeks of work"


def test_a_diverted_checkpoint_can_be_read_back(run, tmp_path):
    out = run("import torch; torch.save({'a': 7}, 'm.pt'); print(torch.load('m.pt')['a'])")

    assert out.strip() == "7"
    assert not (tmp_path / "m.pt").exists()


def test_a_file_that_is_not_named_like_a_checkpoint_is_safe_when_it_was_there(run, tmp_path):
    notes = tmp_path / "notes"
    notes.write_text("mine")

    run("open('notes', 'w').write('theirs'); assert open('notes').read() == 'theirs'")

    assert notes.read_text() == "mine"


def test_a_diverted_checkpoint_is_there_for_other_processes_of_the_job(run):
    run(
        "import subprocess, sys, torch; torch.save(7, 'm.pt')\n"
        "code = 'import torch; assert torch.load(chr(109) + chr(46) + chr(112) + chr(116)) == 7'\n"
        "subprocess.run([sys.executable, '-c', code], check=True)"
    )


def test_what_the_job_made_itself_it_may_remove(run, tmp_path):
    run(
        "import os, shutil, tempfile\n"
        "d = tempfile.mkdtemp(dir='.'); os.mkdir(d + '/sub')\n"
        "open(d + '/notes.txt', 'w').close(); os.remove(d + '/notes.txt'); shutil.rmtree(d)"
    )

    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_other_files_are_written_where_they_should(run, tmp_path):
    run("open('log.txt', 'w').write('loss 1.0')")

    assert (tmp_path / "log.txt").read_text() == "loss 1.0"


def test_loaders_defined_after_the_patch_are_observed_too(run):
    out = run(
        "import torch.utils.data as d\n"
        "class Mine(d.DataLoader):\n"
        "    def __iter__(self): return super().__iter__()\n"
        "print(*(hasattr(c.__iter__, '__wrapped__') for c in (Mine, d.DataLoader)))"
    )

    assert out.split() == ["True", "True"]
