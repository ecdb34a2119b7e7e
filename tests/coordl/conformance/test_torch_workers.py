"""Worker processes: what they are told, how long they live, how they are started."""

from __future__ import annotations

import inspect
import multiprocessing
import warnings
from typing import Any

import pytest
import torch
import torch.utils.data
from conformance_data import Numbers, SizedStream, Who, indices, mark, passing, same

import coordl

pytestmark = pytest.mark.area("worker processes")

STARTS = ("fork", "spawn", "forkserver")


def told(loader: Any) -> dict[str, list[int]]:
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]).tolist() for name in batches[0]}


@pytest.mark.area("get_worker_info()")
@pytest.mark.parametrize("extra", [{}, {"seed": 1}], ids=str)
def test_samples_know_their_worker_as_in_torch(extra: dict[str, Any]) -> None:
    assert torch.utils.data.get_worker_info() is None
    seen = []
    for kind, options in ((torch.utils.data.DataLoader, {}), (coordl.DataLoader, extra)):
        generator = torch.Generator().manual_seed(1)
        loader = kind(
            Told() if options else Who(), 2, num_workers=2, generator=generator, **options
        )
        seen.append(told(loader))
        processes = seen[-1].pop("process")
        assert processes[0:2] == processes[4:6] != processes[2:4]
    if extra:  # samples have seeds of their own then
        for facts in seen:
            facts.pop("seed"), facts.pop("own")
    assert seen[0] == seen[1]
    assert torch.utils.data.get_worker_info() is None


class Told(Who):
    """Does not expect the generator to stand at the worker's seed."""

    def __getitem__(self, index: int) -> dict[str, int]:
        info = torch.utils.data.get_worker_info()
        assert info is not None
        torch.manual_seed(info.seed)
        return super().__getitem__(index)


@pytest.mark.area("worker_init_fn")
@pytest.mark.parametrize("extra", [{}, {"seed": 1}], ids=str)
def test_worker_init_fn_writes_into_the_workers_copy(extra: dict[str, Any]) -> None:
    data = Told()
    loader = coordl.DataLoader(data, 2, num_workers=2, worker_init_fn=mark, **extra)
    facts = told(loader)
    assert facts["marked_by"] == facts["worker"] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert data.marked_by == -1


@pytest.mark.area("worker_init_fn")
def test_worker_init_fn_sends_pictures_to_workers(folder: coordl.ImageFolder) -> None:
    options: dict[str, Any] = {"batch_size": 4, "num_workers": 1, "worker_init_fn": mark}
    ours = coordl.DataLoader(folder, **options)
    assert same(list(ours), list(torch.utils.data.DataLoader(folder, **options)))


class Remembering(torch.utils.data.Dataset):
    """Counts what its copy was asked for."""

    asked = 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        self.asked += 1
        return self.asked


@pytest.mark.area("persistent_workers")
@pytest.mark.parametrize("extra", [{}, {"seed": 1}], ids=str)
def test_persistent_workers_keep_their_copy_and_others_do_not(extra: dict[str, Any]) -> None:
    for persistent in (False, True):
        loader = coordl.DataLoader(
            Remembering(), 2, num_workers=1, persistent_workers=persistent, **extra
        )
        first, second = ([int(n) for batch in loader for n in batch] for _ in range(2))
        assert first == [1, 2, 3, 4, 5, 6]
        assert second == ([7, 8, 9, 10, 11, 12] if persistent else first)


@pytest.mark.area("persistent_workers")
def test_persistent_workers_are_the_same_processes_after_a_pass_left_early() -> None:
    loader = coordl.DataLoader(Who(), 2, num_workers=2, persistent_workers=True)
    first = iter(loader)
    processes = [worker.pid for worker in first._workers]
    next(first)
    second = iter(loader)
    assert second is first
    assert [batch["index"].tolist() for batch in second] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [worker.pid for worker in second._workers] == processes


@pytest.mark.area("persistent_workers")
def test_native_passes_of_a_persistent_loader_begin_anew(folder: coordl.ImageFolder) -> None:
    loader = coordl.DataLoader(folder, 5, num_workers=2, persistent_workers=True, prep="native")
    expected = list(torch.utils.data.DataLoader(folder, 5))
    first = iter(loader)
    next(first)
    assert iter(loader) is first
    assert same(list(loader), expected) and same(list(loader), expected)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.area("start methods")
def test_every_start_method_gives_the_same(start: str) -> None:
    given: list[Any] = [start]
    if start == "fork":
        given += [multiprocessing.get_context(start), torch.multiprocessing.get_context(start)]
    for context in given:
        loader = coordl.DataLoader(Numbers(), 5, num_workers=1, multiprocessing_context=context)
        assert loader.multiprocessing_context.get_start_method() == start
        assert indices(loader) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.area("start methods")
def test_native_prep_starts_no_process_whatever_the_method(
    folder: coordl.ImageFolder, start: str
) -> None:
    loader = coordl.DataLoader(folder, 5, num_workers=2, multiprocessing_context=start)
    before = multiprocessing.active_children()
    assert indices(loader) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert multiprocessing.active_children() == before


class Gate(torch.utils.data.Dataset):
    """Sample 0 waits until worker 1 has made all of its own."""

    def __init__(self) -> None:
        self.done = torch.multiprocessing.get_context("fork").Semaphore(0)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if index == 0:
            self.done.acquire()
        if index == 3:
            self.done.release()
        return index


@pytest.mark.area("in_order")
def test_in_order_waits_for_the_slow_one_and_out_of_order_does_not() -> None:
    for in_order in (True, False):
        loader = coordl.DataLoader(
            Gate(), num_workers=2, in_order=in_order, multiprocessing_context="fork"
        )
        got = [int(batch) for batch in loader]
        assert sorted(got) == list(range(6))
        assert (got == list(range(6))) == in_order and (got[0] == 0) == in_order


@pytest.mark.area("in_order")
def test_native_passes_are_in_order_whether_asked_or_not(folder: coordl.ImageFolder) -> None:
    loader = coordl.DataLoader(folder, 5, num_workers=2, in_order=False, prep="native")
    assert indices(loader) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


class Stuck(Numbers):
    """Waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = torch.multiprocessing.get_context("fork").Event()

    def __getitem__(self, index: int) -> Any:
        self.gate.wait()
        return super().__getitem__(index)


@pytest.mark.area("timeout")
def test_a_worker_that_does_not_answer_is_torchs_error() -> None:
    data = Stuck()
    loader = coordl.DataLoader(
        data, num_workers=1, timeout=0.2, multiprocessing_context="fork", sampler=[1]
    )
    with passing(loader) as iterator:
        with pytest.raises(RuntimeError, match=r"^DataLoader timed out after 0\.2 seconds: w"):
            next(iterator)
        data.gate.set()  # else torch waits for the worker's end


@pytest.mark.area("timeout")
def test_a_timeout_that_is_not_needed_changes_nothing(folder: coordl.ImageFolder) -> None:
    for data in (folder, Numbers()):
        assert len(list(coordl.DataLoader(data, 5, num_workers=1, timeout=60))) == 3


@pytest.mark.area("warnings")
def test_more_workers_than_cores_warn_as_torch_does(folder: coordl.ImageFolder) -> None:
    messages = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kind(Numbers(), num_workers=1000)
        messages.append([(w.category, str(w.message)) for w in caught])
    assert messages[0] == messages[1]
    assert "excessive worker creation" in messages[0][0][1]


@pytest.mark.area("worker processes")
def test_workers_split_an_iterable_and_end_with_the_iterator() -> None:
    loader = coordl.DataLoader(SizedStream(), 2, num_workers=2)
    iterator = iter(loader)
    workers = iterator._workers
    got = sorted(int(number) for batch in iterator for number in batch)
    assert got == list(range(12))
    del iterator
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0


def test_a_pass_left_early_ends_its_workers() -> None:
    iterator = iter(coordl.DataLoader(Numbers(), 2, num_workers=2))
    next(iterator)
    workers = iterator._workers
    del iterator
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()


def test_the_iterators_are_torchs_own_classes(folder: coordl.ImageFolder) -> None:
    from torch.utils.data import dataloader as torchs

    plain = iter(coordl.DataLoader(Numbers()))
    working = iter(coordl.DataLoader(Numbers(), num_workers=1))
    native = iter(coordl.DataLoader(folder))
    assert isinstance(plain, torchs._SingleProcessDataLoaderIter)
    assert isinstance(working, torchs._MultiProcessingDataLoaderIter)
    assert isinstance(native, torchs._BaseDataLoaderIter)
    assert all(inspect.isclass(type(one)) and len(one) == 12 for one in (plain, working, native))
