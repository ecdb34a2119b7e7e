"""What a sample, a collate_fn or a worker fails with: torch's class, text and place."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
import torch.utils.data
from conformance_data import Engine, Failing, Numbers, Stream, TwoPartError, indices, passing

import coordl

pytestmark = pytest.mark.area("exceptions")

ERRORS: list[Exception] = [
    ValueError("a bad value"),
    KeyError("a\nkey"),
    FileNotFoundError(2, "No such file", "/x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    json.JSONDecodeError("bad", "{", 1),
    TwoPartError("this", 5),
    RuntimeError("CUDA out of memory"),
]


def failures(loader: Any) -> list[Any]:
    """Minibatches as indices, and (class, text) of what was raised between them."""
    iterator, seen = iter(loader), []
    while True:
        try:
            seen.append(next(iterator)[1].tolist())
        except StopIteration:
            return seen
        except Exception as error:
            seen.append((type(error).__qualname__, str(error)))


def comparable(text: Any) -> Any:
    """A worker's traceback without file lines of either library, and without our note."""
    if isinstance(text, list):
        return text
    name, message = text
    ours = ("  ", "sample 5")  # the note that names it
    return name, [line for line in message.splitlines() if not line.startswith(ours)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("extra", [{}, {"seed": 1}], ids=str)
def test_a_samples_error_is_torchs_at_torchs_place(
    error: Exception, workers: int, extra: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"batch_size": 2, "num_workers": workers}
    ours = failures(coordl.DataLoader(Failing(error), **options, **extra))
    stock = failures(torch.utils.data.DataLoader(Failing(error), **options))
    assert [comparable(one) for one in ours] == [comparable(one) for one in stock]
    assert ours[:2] == [[0, 1], [2, 3]] and ours[3] == [6, 7]
    if workers:
        assert "in DataLoader worker process 0" in ours[2][1] and "Traceback" in ours[2][1]
        assert "in __getitem__" in ours[2][1]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_collation_or_at_the_start_is_the_users_own(workers: int) -> None:
    def collate(samples: list[Any]) -> Any:
        raise ArithmeticError("cannot collate")

    loader: Any = coordl.DataLoader(Numbers(), collate_fn=collate, num_workers=workers)
    with passing(loader) as batches, pytest.raises(ArithmeticError, match="cannot collate"):
        list(batches)

    class Unready(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            raise PermissionError("not ready")

    if workers:
        loader = coordl.DataLoader(Unready(), num_workers=workers)
        with passing(loader) as batches, pytest.raises(PermissionError, match="not ready"):
            list(batches)
    else:  # it is made with the iterator
        with pytest.raises(PermissionError, match="not ready"):
            iter(coordl.DataLoader(Unready()))


def test_an_error_in_worker_init_fn_is_raised_with_its_traceback() -> None:
    def fails(worker: int) -> None:
        raise OSError(f"worker {worker} cannot")

    loader = coordl.DataLoader(Numbers(), num_workers=1, worker_init_fn=fails)
    with passing(loader) as batches:
        with pytest.raises(OSError, match=r"Original Traceback[^$]*worker 0 cannot"):
            list(batches)


def test_an_abstract_data_set_raises_for_every_minibatch() -> None:
    class Unfinished(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 5

    for workers in (0, 2):
        iterator, errors = iter(coordl.DataLoader(Unfinished(), 2, num_workers=workers)), 0
        while True:
            try:
                next(iterator)
            except NotImplementedError:
                errors += 1
            except StopIteration:
                break
        assert errors == 3


KILLED = """
import os, signal
import coordl

class Killed:
    def __len__(self):
        return 12
    def __getitem__(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return str(index)  # text: a tensor of a process that was killed cannot be fetched any more

for extra in ({}, {"seed": 1}):
    loader = coordl.DataLoader(Killed(), num_workers=1, **extra)
    try:
        list(loader)
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.area("killed workers")
def test_a_killed_worker_is_torchs_error_and_names_it() -> None:
    """In a process of its own: torch's handler of SIGCHLD raises wherever the main thread is."""
    said = subprocess.run(
        [sys.executable, "-c", KILLED], check=True, capture_output=True, text=True, timeout=120
    ).stdout.splitlines()
    assert len(said) == 2
    assert all(re.match(r"DataLoader worker \(pid(\(s\))? \d+\) ", line) for line in said)


def test_the_loop_goes_on_after_an_error_and_the_next_epoch_is_whole(engine: Engine) -> None:
    loader = engine.ours(batch_size=4, sampler=[0, 1, 2, 3, 99, 4, 5, 6, 7])
    for _ in range(2):
        with passing(loader) as iterator:
            assert next(iterator)[1].tolist() == [0, 1, 2, 3]
            with pytest.raises(IndexError):
                next(iterator)
            assert indices(iterator) == [[7]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_that_raises_midway_ends_as_torchs_does(workers: int) -> None:
    class Breaking(Stream):
        def __iter__(self) -> Any:
            yield from (0, 1)
            raise BlockingIOError("broken off")

    seen = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        got = []
        with passing(kind(Breaking(), num_workers=workers)) as iterator:
            with pytest.raises(BlockingIOError, match="broken off"):
                while True:
                    got.append(int(next(iterator)))
            got.append(len(list(iterator)))
        seen.append(got)
    assert seen[0] == seen[1]


class WithState(Failing):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize("kind", [Failing, WithState])
def test_an_iterator_dropped_after_an_error_ends_without_the_garbage_collector(kind: Any) -> None:
    """torch's lives on in a cycle, with its workers; to collect those takes 5 s each."""
    gc.disable()
    try:
        iterator = iter(coordl.DataLoader(kind(ValueError("bad")), num_workers=2))
        with pytest.raises(ValueError, match="bad"):
            while True:
                next(iterator)
        workers, gone = list(iterator._workers), weakref.ref(iterator)
        del iterator
        assert gone() is None
        assert not any(worker.is_alive() for worker in workers)
    finally:
        gc.enable()


class BreaksDown(torch.utils.data.Sampler):
    def __len__(self) -> int:
        return 40

    def __iter__(self) -> Any:
        for index in range(40):
            if index == 18:
                raise KeyError("sampler broke")
            yield index % 5


@pytest.mark.parametrize("kind", [Failing, WithState])
def test_a_samplers_error_keeps_its_frames_and_their_variables(kind: Any) -> None:
    loader = coordl.DataLoader(kind(ValueError("bad")), 1, sampler=BreaksDown(), num_workers=2)
    with pytest.raises(KeyError) as caught:
        for _ in loader:
            pass
    last = caught.traceback[-1]
    assert last.name == "__iter__" and last.frame.f_locals["index"] == 18
