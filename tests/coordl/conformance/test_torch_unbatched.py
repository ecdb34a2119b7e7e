"""batch_size=None: samples one by one, and batches that samplers or data sets make themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from conformance_data import Engine, Numbers, Pair, SizedStream, same

import coordl

pytestmark = pytest.mark.area("batch_size=None")


def test_samples_come_one_by_one_as_torch_converts_them(engine: Engine) -> None:
    options = {"batch_size": None, "prep": "auto"}
    ours, stock = engine.ours(**options), engine.stock(batch_size=None)
    assert same(list(ours), list(stock)) and len(ours) == len(stock)
    assert ours.batch_sampler is None and ours.collate_fn is stock.collate_fn


class Assorted(torch.utils.data.Dataset):
    samples = (
        1,
        "text",
        np.arange(3),
        np.float32(2),
        {"a": np.ones(2), "b": [1, np.zeros(1)]},
        Pair(np.ones(1), "p"),
        None,
        b"bytes",
    )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_numpy_becomes_tensors_and_nothing_else_changes(workers: int) -> None:
    options: dict[str, Any] = {"batch_size": None, "num_workers": workers}
    ours = list(coordl.DataLoader(Assorted(), **options))
    assert same(ours, list(torch.utils.data.DataLoader(Assorted(), **options)))
    assert isinstance(ours[2], torch.Tensor) and isinstance(ours[5].value, torch.Tensor)


class Bulk(torch.utils.data.Dataset):
    """A data set that makes whole batches of the lists it is asked for."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, indices: list[int]) -> torch.Tensor:
        assert isinstance(indices, list)
        return torch.tensor(indices) * 10


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_may_name_whole_batches(workers: int) -> None:
    batches = torch.utils.data.BatchSampler(range(9), 4, False)
    loader = coordl.DataLoader(Bulk(), batch_size=None, sampler=batches, num_workers=workers)
    assert [batch.tolist() for batch in loader] == [[0, 10, 20, 30], [40, 50, 60, 70], [80]]
    assert len(loader) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_iterable_data_sets_give_what_they_give(workers: int) -> None:
    loader = coordl.DataLoader(SizedStream(), batch_size=None, num_workers=workers)
    got = list(loader)
    assert got == list(range(12)) and all(type(one) is int for one in got) and len(loader) == 12


def test_a_collate_fn_takes_each_sample() -> None:
    loader = coordl.DataLoader(Numbers(), batch_size=None, collate_fn=lambda sample: sample[1] * 2)
    assert list(loader) == [2 * number for number in range(12)]


@pytest.mark.parametrize("workers", [0, 2])
def test_seed_keys_samples_one_by_one(pictures: Any, workers: int) -> None:
    class Drawing(Numbers):
        def __getitem__(self, index: int) -> Any:
            return torch.rand(1), int(index)

    first, again = (
        list(coordl.DataLoader(Drawing(), batch_size=None, num_workers=n, seed=5))
        for n in (0, workers)
    )
    assert same(first, again)
