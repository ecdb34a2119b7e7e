"""Iterable data sets: lengths, warnings, shares of workers, pipes."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
import torch.utils.data
from conformance_data import SizedStream, Stream, outcome, same
from torch.utils.data import ChainDataset
from torch.utils.data.datapipes.iter import IterableWrapper

import coordl

pytestmark = pytest.mark.area("iterable data sets")


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("options", [{}, {"batch_size": 5}, {"batch_size": 5, "drop_last": True}])
def test_minibatches_are_torchs(workers: int, options: dict[str, Any]) -> None:
    options = {**options, "num_workers": workers}
    ours = coordl.DataLoader(Stream(), **options)
    expected = list(torch.utils.data.DataLoader(Stream(), **options))
    assert same(list(ours), expected)
    assert same(list(ours), expected)


@pytest.mark.parametrize("batch", [1, 2, 5, None])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_length_is_estimated_as_torch_does(batch: int | None, drop_last: bool) -> None:
    options: dict[str, Any] = {"batch_size": batch, "drop_last": drop_last and batch is not None}
    ours, stock = (
        kind(SizedStream(), **options) for kind in (coordl.DataLoader, torch.utils.data.DataLoader)
    )
    assert len(ours) == len(stock)
    lengths = [
        outcome(len, kind(Stream())) for kind in (coordl.DataLoader, torch.utils.data.DataLoader)
    ]
    assert lengths[0] == lengths[1] is not None


@pytest.mark.area("warnings")
@pytest.mark.parametrize("workers", [0, 2])
def test_more_samples_than_the_length_warn_at_the_users_line(workers: int) -> None:
    messages = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        data = SizedStream(6, split=False)
        if workers == 0:
            data.__class__ = _TooShort
        loader = kind(data, num_workers=workers)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            list(loader)  # nobody asked for the length yet
            assert caught == []
            length = len(loader)
            iterator = iter(loader)
            for _ in range(length):
                next(iterator)
            assert caught == []
            line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
            next(iterator)
        assert [(w.filename, w.lineno) for w in caught] == [(__file__, line)]
        messages.append(str(caught[0].message).partition("was reported")[2])
    assert messages[0] == messages[1]


class _TooShort(SizedStream):
    def __len__(self) -> int:
        return self.count - 2


@pytest.mark.parametrize("workers", [0, 1])
def test_chains_follow_each_other(workers: int) -> None:
    for chain in (Stream(3) + Stream(2), ChainDataset([Stream(3), Stream(2)])):
        got = [int(batch) for batch in coordl.DataLoader(chain, num_workers=workers)]
        assert got == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_end_early_leave_the_rest_to_the_others(workers: int) -> None:
    class Uneven(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            info = torch.utils.data.get_worker_info()
            return iter(range(9 if info is None or info.id else 2))

    options: dict[str, Any] = {"batch_size": 4, "num_workers": workers}
    ours, stock = (
        list(kind(Uneven(), **options)) for kind in (coordl.DataLoader, torch.utils.data.DataLoader)
    )
    assert same(ours, stock)


@pytest.mark.area("data pipes")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False, None])
def test_data_pipes_are_shuffled_and_shared_out_by_the_loader(
    workers: int, shuffle: bool | None
) -> None:
    seen = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        pipe = IterableWrapper(range(20)).shuffle(buffer_size=20).sharding_filter()
        torch.manual_seed(5)
        loader = kind(pipe, batch_size=3, shuffle=shuffle, num_workers=workers)
        seen.append([[batch.tolist() for batch in loader] for _ in range(2)])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_seed_leaves_them_alone(workers: int) -> None:
    options: dict[str, Any] = {"batch_size": 4, "num_workers": workers}
    ours = coordl.DataLoader(Stream(), seed=3, **options)
    assert same(list(ours), list(torch.utils.data.DataLoader(Stream(), **options)))
