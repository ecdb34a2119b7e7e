"""From samples to minibatches: structures, collate_fn, __getitems__, pinning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from conformance_data import Batched, Engine, Numbers, Pair, outcome, passing, same, summed
from torch.utils.data import default_collate

import coordl

pytestmark = pytest.mark.area("collation")


class Made(torch.utils.data.Dataset):
    """Samples of one structure."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return STRUCTURES[self.kind](index)


class OwnDict(dict):
    pass


STRUCTURES: dict[str, Any] = {
    "tensor": lambda i: torch.full((2, 3), i),
    "0-dim": lambda i: torch.tensor(i / 2, dtype=torch.float16),
    "empty": lambda i: torch.empty(0),
    "bool": lambda i: i % 2 == 0,
    "int": lambda i: i,
    "float": lambda i: i / 3,
    "str": lambda i: f"s{i}",
    "bytes": lambda i: bytes([i]),
    "array": lambda i: np.full((2,), i, np.int16),
    "scalar": lambda i: np.float32(i),
    "tuple": lambda i: (i, f"{i}"),
    "list": lambda i: [torch.ones(1) * i, [i, i]],
    "dict": lambda i: {"a": torch.ones(2) * i, "b": {"c": i, "d": (f"{i}", np.zeros(1))}},
    "own dict": lambda i: OwnDict(x=i),
    "named tuple": lambda i: Pair(torch.ones(1) * i, f"{i}"),
    "named tuples within": lambda i: {"p": Pair(Pair(i, "x"), f"{i}")},
    "strided": lambda i: torch.arange(6).reshape(2, 3).t() + i,
    "sparse": lambda i: torch.eye(3).to_sparse(),
    "grows": lambda i: torch.ones(1 + i),  # cannot be stacked
    "None": lambda i: None,  # cannot be collated
    "object": lambda i: object(),
    "ragged": lambda i: [1] * (i + 1),
    "mixed": lambda i: "text" if i else 1,
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_structures_are_collated_or_refused_as_torch_does(structure: str, workers: int) -> None:
    seen = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        loader = kind(Made(structure), batch_size=2, num_workers=workers)
        batches: list[Any] = []
        with passing(loader) as batches_of:
            refused = outcome(batches.extend, batches_of)
        kept = [b.to_dense() if structure == "sparse" else b for b in batches]
        # Of a refusal in a worker the text holds a traceback, with the worker's number in it.
        seen.append((kept, refused and (refused[0], refused[1].splitlines()[-1])))
    assert seen[0][1] == seen[1][1]
    assert same(seen[0][0], seen[1][0])


def test_a_collate_fn_of_ones_own_gets_the_samples(engine: Engine) -> None:
    options: dict[str, Any] = {"batch_size": 5, "collate_fn": summed}
    stock = engine.stock(**options)
    ours = list(engine.ours(**options, prep="auto"))
    for (values, names), (expected, theirs) in zip(ours, stock, strict=True):
        assert names == theirs and (values - expected).abs().max() <= 10


@pytest.mark.area("__getitems__")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_that_makes_several_at_once_is_asked_once(workers: int) -> None:
    options: dict[str, Any] = {"batch_size": 5, "num_workers": workers}
    ours = list(coordl.DataLoader(Batched(), **options))
    assert same(ours, list(torch.utils.data.DataLoader(Batched(), **options)))
    assert [batch[0][0, 1].item() for batch in ours] == [5, 5, 2]


@pytest.mark.area("__getitems__")
def test_a_getitems_of_none_is_none() -> None:
    class Without(Numbers):
        __getitems__ = None

    assert same(
        list(coordl.DataLoader(Without(), batch_size=3)),
        list(torch.utils.data.DataLoader(Without(), batch_size=3)),
    )


def test_the_default_functions_are_torchs_own() -> None:
    assert coordl.DataLoader(Numbers()).collate_fn is default_collate
    convert = torch.utils.data.default_convert
    assert coordl.DataLoader(Numbers(), batch_size=None).collate_fn is convert


class OwnBatch:
    """A minibatch that knows how to pin itself."""

    def __init__(self, samples: list[Any]) -> None:
        self.values = torch.stack([sample[0] for sample in samples])
        self.pinned = False

    def pin_memory(self, device: Any = None) -> OwnBatch:
        self.pinned = True
        return self


@pytest.mark.area("pin_memory")
def test_pinning_without_an_accelerator_warns_and_pins_nothing(engine: Engine) -> None:
    if torch.accelerator.is_available():
        pytest.skip("an accelerator is here: memory is pinned")
    messages = []
    for make in (engine.stock, engine.ours):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            batch = next(iter(make(batch_size=2, pin_memory=True)))
        assert not batch[0].is_pinned()
        # Python 3.12 and later also warn of a fork beside threads, each loader's own.
        users = [warning for warning in caught if warning.category is UserWarning]
        messages.append([str(warning.message) for warning in users])
    assert messages[0] == messages[1] != []


@pytest.mark.area("pin_memory")
def test_pinned_minibatches_are_pinned(engine: Engine) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA: only there memory is pinned")
    batch = next(iter(engine.ours(batch_size=2, pin_memory=True)))
    assert batch[0].is_pinned() and batch[1].is_pinned()


@pytest.mark.area("pin_memory")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_minibatch_pins_itself_where_it_can(workers: int) -> None:
    pinning = torch.accelerator.is_available()
    loader = coordl.DataLoader(
        Numbers(), 4, collate_fn=OwnBatch, pin_memory=pinning, num_workers=workers
    )
    batches = list(loader)
    assert all(type(batch) is OwnBatch and batch.pinned == pinning for batch in batches)
