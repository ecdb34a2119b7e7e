"""A minibatch lives as long as a tensor over it; threads live as long as their iterator."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from recipe import native_threads, train_transform

import coordl


def loader_of(folder: Path, workers: int = 2, **more: object) -> coordl.DataLoader:
    data = coordl.ImageFolder(folder, train_transform())
    return coordl.DataLoader(data, 4, num_workers=workers, seed=1, **more)  # type: ignore[arg-type]


def test_list_of_a_loader_keeps_every_batch_intact(folder: Path, nothing_left: None) -> None:
    loader = loader_of(folder)
    one_by_one = [images.clone() for images, _ in loader]
    kept = list(loader_of(folder))
    assert all(torch.equal(a, b) for (a, _), b in zip(kept, one_by_one, strict=True))


def test_writing_into_a_batch_changes_no_other(folder: Path) -> None:
    expected = [images.clone() for images, _ in loader_of(folder)]
    loader = loader_of(folder)
    for (images, _), unspoilt in zip(loader, expected, strict=True):
        assert torch.equal(images, unspoilt)
        images.zero_()
    loader = loader_of(folder)
    batches = list(loader)
    batches[0][0].fill_(7)
    assert torch.equal(batches[1][0], expected[1])


def test_a_batch_is_resized_as_those_of_torchs_workers_are(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        loader = kind(data, 4, num_workers=1)
        images, _ = next(iter(loader))
        images.clone().resize_(8, *images.shape[1:])
        images.resize_(2, 3, 8, 8)
        images, _ = next(iter(loader))
        # Nothing may look at it afterwards: torch has given it the larger shape all the same.
        with pytest.raises(RuntimeError, match="storage that is not resizable"):
            images.resize_(8, *images.shape[1:])


def test_a_view_keeps_the_batch_when_loader_and_iterator_are_gone(folder: Path) -> None:
    loader = loader_of(folder)
    iterator = iter(loader)
    batch = next(iterator)
    expected = batch[0][1, 0].clone()
    view = batch[0][1, 0]
    del batch, iterator, loader
    gc.collect()
    assert torch.equal(view, expected)
    view += 1


def test_memory_is_recycled_once_a_batch_is_dropped(folder: Path) -> None:
    loader = loader_of(folder, workers=1)
    for _ in range(3):
        addresses = {images.data_ptr() for images, _ in loader}
    assert len(addresses) < len(loader)


def test_early_break_leaves_no_thread(folder: Path, nothing_left: None) -> None:
    for _ in loader_of(folder):
        assert native_threads()
        break


def test_a_failing_consumer_leaves_no_thread(folder: Path, nothing_left: None) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in loader_of(folder):
            raise ZeroDivisionError
    gc.collect()


def test_a_persistent_loader_let_go_of_leaves_no_thread(folder: Path, nothing_left: None) -> None:
    gc.disable()  # it must not take the garbage collector
    try:
        loader = loader_of(folder, persistent_workers=True)
        next(iter(loader))
        assert native_threads()
        del loader
        assert native_threads() == []
    finally:
        gc.enable()


def test_a_timeout_is_torchs_error_and_the_minibatch_still_comes(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(512))
    loader = coordl.DataLoader(data, 22, num_workers=1, timeout=1e-6)
    iterator = iter(loader)
    with pytest.raises(RuntimeError, match="DataLoader timed out after 1e-06 seconds"):
        next(iterator)
    iterator._timeout = 0
    assert len(next(iterator)[1]) == 22


def test_threads_end_with_the_last_batch(folder: Path) -> None:
    iterator = iter(loader_of(folder))
    for _ in iterator:
        pass
    assert native_threads() == []
    with pytest.raises(StopIteration):
        next(iterator)


def test_without_workers_nothing_is_prepared_ahead(folder: Path) -> None:
    loader = loader_of(folder, workers=0)
    iterator = iter(loader)
    next(iterator)
    assert loader.stats()["total"]["misses"] == 4


def test_a_sampler_that_fails_leaves_no_thread(folder: Path, nothing_left: None) -> None:
    def order() -> object:
        yield [0]
        raise RuntimeError("sampler broke")

    data = coordl.ImageFolder(folder, train_transform())

    class Batches:
        def __iter__(self) -> object:
            return order()

    with pytest.raises(RuntimeError, match="sampler broke"):
        iter(coordl.DataLoader(data, batch_sampler=Batches(), num_workers=1))  # type: ignore[arg-type]


def test_several_threads_may_iterate_loaders_at_once(folder: Path, nothing_left: None) -> None:
    expected = [images for images, _ in loader_of(folder)]
    wrong: list[int] = []

    def consume() -> None:
        for number, (images, _) in enumerate(loader_of(folder)):
            if not torch.equal(images, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_loader_in_use_can_be_pickled(folder: Path) -> None:
    loader = loader_of(folder, workers=0)
    expected = [images for images, _ in loader]
    again = pickle.loads(pickle.dumps(loader))
    assert all(torch.equal(a, b) for (a, _), b in zip(again, expected, strict=True))


def test_a_forked_child_ends_cleanly_and_may_iterate_anew(folder: Path) -> None:
    loader = loader_of(folder)
    iterator = iter(loader)
    batch = next(iterator)
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)  # a child that hangs is killed: the test fails instead of waiting
            try:
                while True:
                    next(iterator)
            except RuntimeError as error:
                fine = "forked" in str(error)
            fine = fine and len(list(loader)) == 6 and float(batch[0].sum()) != 0
            del iterator, batch, loader
            gc.collect()
            os._exit(0 if fine else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(iterator)) == 5  # the parent goes on


SCRIPT = """
import sys, coordl
from recipe import train_transform
loader = coordl.DataLoader(coordl.ImageFolder(sys.argv[1], train_transform()), 4, num_workers=2)
iterator = iter(loader)
batch = next(iterator)
print("yielded", flush=True)
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent,
    )


def test_an_interpreter_may_exit_with_an_iterator_alive(folder: Path) -> None:
    done = run(SCRIPT, folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "yielded\n", "")


def test_an_interpreter_may_exit_with_a_stock_fork_in_between(folder: Path) -> None:
    quiet = (
        "import os, warnings\nwarnings.simplefilter('ignore')\n"  # of forks beside threads, 3.12
    )
    script = SCRIPT + quiet + "if os.fork() == 0: sys.exit(0)\nprint(os.wait()[1])\n"
    done = run(script, folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "yielded\n0\n", "")


def test_ctrl_c_interrupts_the_loop(folder: Path) -> None:
    script = SCRIPT + (
        "import os, signal, threading\n"
        "try:\n"
        "    threading.Timer(0, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    while True: list(loader)\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    done = run(script, folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "yielded\ninterrupted\n", "")


def test_threads_go_on_while_python_computes(folder: Path) -> None:
    """A thread of ours that took Python's lock would wait for a loop that does not give it up."""
    data = coordl.ImageFolder(folder, train_transform())
    iterator = iter(coordl.DataLoader(data, 2, num_workers=3, prefetch_factor=3, prep="native"))
    next(iterator)
    every, deadline = sys.getswitchinterval(), time.monotonic() + 20
    sys.setswitchinterval(1000)
    try:
        # Of eleven minibatches one is taken and nine are ahead; all end while this loop computes.
        while (made := iterator._threads.counters()["samples"]) < 20:
            assert time.monotonic() < deadline, f"{made} samples"
    finally:
        sys.setswitchinterval(every)
