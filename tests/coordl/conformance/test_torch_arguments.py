"""Arguments: checked by torch, in torch's words."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, get_type_hints

import pytest
import torch
import torch.utils.data
from conformance_data import Numbers, Stream, named, outcome
from torch.utils.data import BatchSampler, SequentialSampler

import coordl

pytestmark = pytest.mark.area("arguments and their messages")

MAP: list[dict[str, Any]] = [
    {"num_workers": -1},
    {"timeout": -1},
    {"prefetch_factor": 2},
    {"num_workers": 1, "prefetch_factor": -1},
    {"persistent_workers": True},
    {"batch_size": None, "drop_last": True},
    {"batch_size": 0},
    {"batch_size": -3},
    {"batch_size": 1.5},
    {"batch_size": True},
    {"drop_last": "yes"},
    {"multiprocessing_context": "fork"},
    {"num_workers": 1, "multiprocessing_context": "teleport"},
    {"num_workers": 1, "multiprocessing_context": object},
    {"sampler": [1], "shuffle": True},
    {"batch_sampler": [[1]], "batch_size": 11},
    {"batch_sampler": [[1]], "shuffle": True},
    {"batch_sampler": [[1]], "sampler": [1]},
    {"batch_sampler": [[1]], "drop_last": True},
    {"num_workers": None},
    {"num_workers": "many"},
    {"timeout": "long"},
    {"unknown": 1},
    {"sampler": 3},
]
STREAM: list[dict[str, Any]] = [
    {"shuffle": True},
    {"shuffle": 3},
    {"sampler": [1]},
    {"batch_sampler": [[1]]},
]


@pytest.mark.parametrize(
    ("data", "options"),
    [(Numbers(), options) for options in MAP] + [(Stream(), options) for options in STREAM],
    ids=named,
)
def test_a_wrong_argument_is_refused_in_torchs_words(data: Any, options: dict[str, Any]) -> None:
    theirs = outcome(torch.utils.data.DataLoader, data, **options)
    assert outcome(coordl.DataLoader, data, **options) == theirs


def test_samplers_are_refused_where_torch_refuses_them() -> None:
    batches = BatchSampler(SequentialSampler(Numbers()), 3, False)
    for options in ({"batch_sampler": batches, "sampler": range(3), "shuffle": 3}, {"sampler": 0}):
        theirs = outcome(torch.utils.data.DataLoader, Numbers(), **options)
        assert outcome(coordl.DataLoader, Numbers(), **options) == theirs


def test_a_timeout_without_workers_is_refused_when_a_pass_begins() -> None:
    theirs, ours = (
        outcome(iter, kind(Numbers(), timeout=3))
        for kind in (torch.utils.data.DataLoader, coordl.DataLoader)
    )
    assert ours == theirs is not None


def test_the_pinning_device_is_told_to_be_deprecated_as_torch_does(folder: Any) -> None:
    for data in (Numbers(), folder):
        messages = []
        for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                iter(kind(data, pin_memory=True, pin_memory_device="cuda"))
            messages.append([(w.category, str(w.message)) for w in caught])
        assert messages[0] == messages[1] != []


GOOD: list[dict[str, Any]] = [
    {},
    {"batch_size": 3, "drop_last": True},
    {"batch_size": None},
    {"shuffle": True},
    {"sampler": [1, 2]},
    {"batch_sampler": [[1], [2]]},
    {"num_workers": 1},
    {"num_workers": 1, "prefetch_factor": 4, "persistent_workers": True},
    {"num_workers": 1, "multiprocessing_context": "spawn", "timeout": 2.5},
    {"worker_init_fn": print, "collate_fn": list, "generator": torch.Generator()},
    {"in_order": False},
]


def described(value: Any) -> Any:
    """A sampler by its class and settings; anything else as it is."""
    if isinstance(value, torch.utils.data.Sampler):
        return type(value), {name: described(one) for name, one in vars(value).items()}
    return value


@pytest.mark.area("attributes")
@pytest.mark.parametrize("options", GOOD, ids=named)
def test_attributes_are_torchs(options: dict[str, Any], folder: Any) -> None:
    for data in (Numbers(), folder):
        stock, ours = (
            kind(data, **options) for kind in (torch.utils.data.DataLoader, coordl.DataLoader)
        )
        assert vars(ours).keys() >= vars(stock).keys()
        for name, value in vars(stock).items():
            assert described(getattr(ours, name)) == described(value), name


@pytest.mark.area("signature and types")
def test_the_signature_begins_with_torchs() -> None:
    theirs = list(inspect.signature(torch.utils.data.DataLoader).parameters.values())
    ours = list(inspect.signature(coordl.DataLoader).parameters.values())
    for their, our in zip(theirs, ours, strict=False):
        assert (our.name, our.kind, our.default) == (their.name, their.kind, their.default)
    added = ours[len(theirs) :]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in added)


class _Typed:
    loader: coordl.DataLoader[torch.Tensor]


@pytest.mark.area("signature and types")
def test_it_is_generic_in_what_it_yields() -> None:
    assert coordl.DataLoader[int].__args__ == (int,)  # type: ignore[attr-defined]
    assert issubclass(coordl.DataLoader, torch.utils.data.DataLoader)

    class Texts(coordl.DataLoader[str]):
        pass

    assert list(Texts(["a", "b"])) == [["a"], ["b"]]  # type: ignore[arg-type]
    assert get_type_hints(_Typed)["loader"] == coordl.DataLoader[torch.Tensor]
