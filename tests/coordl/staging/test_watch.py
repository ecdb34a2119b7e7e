"""Workers that hang or die: who, at which sample, where, and why."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import staged_data as data
import torch

import coordl
from coordl.staging import memory, watch

HERE = Path(__file__).parent


def consumed(loader: Any) -> None:
    for _ in loader:
        pass


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_killed_worker_is_torchs_error_naming_it(method: str) -> None:
    loader = coordl.DataLoader(
        data.Deadly("read"), 4, num_workers=2, multiprocessing_context=method
    )
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid") as caught:
        consumed(loader)
    said = str(caught.value)
    assert "worker 1 (pid" in said and "at sample 13" in said and "SIGKILL" in said
    assert "no out-of-memory kill" in said


@pytest.mark.parametrize("collate", [data.kill_while_collating, data.kill_while_packing])
def test_a_worker_killed_at_other_steps_is_named_too(collate: Any, nothing_left: None) -> None:
    loader = coordl.DataLoader(data.Structures("tuple"), 4, num_workers=2, collate_fn=collate)
    with pytest.raises(RuntimeError, match=r"worker 1 \(pid \d+\), at the minibatch of samples 12"):
        consumed(loader)


def test_a_killed_worker_is_noticed_in_other_threads(nothing_left: None) -> None:
    said: list[str] = []

    def consume() -> None:
        try:
            consumed(coordl.DataLoader(data.Deadly("read"), 4, num_workers=1, pin_memory=False))
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=consume)
    thread.start()
    thread.join()
    assert "at sample 13" in said[0] and "SIGKILL" in said[0]


def test_an_idle_worker_killed_from_outside_is_named(nothing_left: None) -> None:
    loader = coordl.DataLoader(data.Structures("tuple"), 4, num_workers=2, persistent_workers=True)
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        for worker in iterator._workers:
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
        consumed(iterator)
    del iterator, loader


def test_out_of_memory_is_named_when_the_kernel_counted_a_kill(
    monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    counts = [(3, 7), (4, 8)]
    monkeypatch.setattr(watch, "oom_kills", lambda: counts.pop(0) if len(counts) > 1 else counts[0])
    loader = coordl.DataLoader(data.Deadly("read"), 4, num_workers=1)
    with pytest.raises(RuntimeError, match=r"out of memory: .* this control group has risen by 1"):
        consumed(loader)


def test_kills_are_counted() -> None:
    group, machine = memory.oom_kills()
    assert group >= 0 and machine >= 0


def test_a_timeout_names_worker_sample_and_stack(tmp_path: Path, nothing_left: None) -> None:
    dataset = data.Hanging(str(tmp_path / "go"))
    loader = coordl.DataLoader(dataset, 2, num_workers=2, timeout=1)
    iterator = iter(loader)
    with pytest.raises(RuntimeError, match="DataLoader timed out after 1 seconds: worker 1") as e:
        consumed(iterator)
    assert "is at sample 6; its stack:" in str(e.value)
    assert "staged_data.py" in str(e.value) and "__getitem__" in str(e.value)
    (tmp_path / "go").touch()
    assert len(next(iterator)[1]) == 2  # the minibatch still comes
    del iterator, e


def test_a_hang_without_timeout_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    monkeypatch.setattr(watch, "STALL_S", 0.2)
    seen: list[str] = []

    def warned(message: str) -> None:
        seen.append(message)
        (tmp_path / "go").touch()

    monkeypatch.setattr("coordl.staging.iterator.warn_user", warned)
    dataset = data.Hanging(str(tmp_path / "go"))
    assert len(list(coordl.DataLoader(dataset, 2, num_workers=2, seed=1))) == 11
    assert len(seen) == 1 and "is at sample 6; its stack:" in seen[0]


def test_the_users_handler_of_the_signal_is_called_too(tmp_path: Path, nothing_left: None) -> None:
    said = tmp_path / "said"
    before = signal.signal(watch.STACK_SIGNAL, lambda *_: said.touch())
    try:
        dataset = data.Hanging(str(tmp_path / "go"))
        loader = coordl.DataLoader(dataset, 2, num_workers=1, timeout=1)
        iterator = iter(loader)
        with pytest.raises(RuntimeError, match=r"its stack:\n.*hread"):
            consumed(iterator)
        (tmp_path / "go").touch()
        consumed(iterator)
        assert said.exists()
        del iterator
    finally:
        signal.signal(watch.STACK_SIGNAL, before)


def test_a_stopped_worker_is_said_to_be_stopped(tmp_path: Path, nothing_left: None) -> None:
    dataset = data.Hanging(str(tmp_path / "go"))
    iterator = iter(coordl.DataLoader(dataset, 2, num_workers=1, timeout=1))
    for _ in range(3):
        next(iterator)
    pid = iterator._workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    try:
        with pytest.raises(RuntimeError, match="the process is T"):
            next(iterator)
    finally:
        os.kill(pid, signal.SIGCONT)
        (tmp_path / "go").touch()
    consumed(iterator)
    del iterator


def test_samples_are_named_with_their_file(tmp_path: Path, photos: list[Path]) -> None:
    (tmp_path / "class").mkdir()
    for number in range(6):
        shutil.copyfile(photos[0], tmp_path / "class" / f"{number}.jpg")
    pictures = coordl.ImageFolder(tmp_path)
    assert watch.name_sample(pictures, 2) == f"sample 2, {pictures.samples[2][0]}"
    subset = torch.utils.data.Subset(pictures, [5, 3])
    assert watch.name_sample(subset, 1) == f"sample 1, {pictures.samples[3][0]}"
    assert watch.name_sample(data.Structures("tuple"), 4) == "sample 4"


SMALL_SHM = """
import sys, torch
sys.path.insert(0, {here!r})
import staged_data as data, coordl
collate = getattr(data, sys.argv[1], None)
for method in ("fork", "spawn"):
    loader = coordl.DataLoader(data.Structures("tuple"), 8, num_workers=2, collate_fn=collate,
                               multiprocessing_context=method, prefetch_factor=4)
    kept = list(loader) + list(loader)
    plain = list(torch.utils.data.DataLoader(data.Structures("tuple"), 8, collate_fn=collate))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(kept, plain + plain, strict=True))
print("same")
"""


@pytest.mark.parametrize("collate", ["none", pytest.param("with_views", marks=pytest.mark.slow)])
def test_a_full_dev_shm_stops_nothing(tmp_path: Path, collate: str) -> None:
    """64 KiB of /dev/shm: two tensors of torch's would not fit."""
    probe = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    try:
        made = subprocess.run(["unshare", "-m", "sh", "-c", probe], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    script = tmp_path / "script.py"
    guarded = SMALL_SHM.format(here=str(HERE)).strip().splitlines()
    main = ["def main():", *(f"    {line}" for line in guarded)]
    script.write_text("\n".join([*main, 'if __name__ == "__main__":', "    main()"]))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{probe} && exec {sys.executable} {script} {collate}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "same", done.stderr
