"""With persistent workers the next pass begins in the tail of this one, and gives what it would."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from recipe import native_threads, train_transform
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

import coordl
from coordl.delivery.native import NativeIterator

Sampling = Callable[[Any], dict[str, Any]]


def own_generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


SAMPLINGS: dict[str, Sampling] = {
    "in order": lambda data: {},
    "torch's generator": lambda data: {"shuffle": True},
    "own generator": lambda data: {"shuffle": True, "generator": own_generator()},
    "with replacement": lambda data: {
        "sampler": RandomSampler(data, replacement=True, num_samples=17)
    },
    "more than there are": lambda data: {
        "sampler": RandomSampler(data, num_samples=33, generator=own_generator())
    },
    "subset": lambda data: {"sampler": SubsetRandomSampler(range(3, 20))},
    "weighted": lambda data: {"sampler": WeightedRandomSampler([1.0, 2.0] * 11, 22)},
    "ranks": lambda data: {"sampler": DistributedSampler(data, 2, 1)},
    "drops the last": lambda data: {"shuffle": True, "drop_last": True},
}


def loader_of(folder: Path, sampling: Sampling = SAMPLINGS["in order"], **more: Any) -> Any:
    data = coordl.ImageFolder(folder, train_transform())
    chosen = {"num_workers": 2, "persistent_workers": True, **sampling(data), **more}
    return coordl.DataLoader(data, 4, **chosen)


def epoch_of(loader: Any, number: int = 0) -> list[tuple[bytes, list[int]]]:
    if isinstance(loader.sampler, DistributedSampler):
        loader.sampler.set_epoch(number)
    return [(images.numpy().tobytes(), targets.tolist()) for images, targets in loader]


def made_before(loader: Any) -> bool:
    """Whether the pass that runs, or ran last, took what the one before it had made."""
    return loader._iterator._made is not None


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_minibatches_are_those_of_a_loader_that_does_not_foresee(
    folder: Path, sampling: str, seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def epochs() -> tuple[list[Any], list[bool], torch.Tensor]:
        torch.manual_seed(1)
        loader = loader_of(folder, SAMPLINGS[sampling], seed=seed)
        got, made = [], []
        for number in range(4):
            got.append(epoch_of(loader, number))
            made.append(made_before(loader))
        return got, made, torch.get_rng_state()

    ours, made, drawn = epochs()
    assert made == [False, True, True, True]
    monkeypatch.setattr(NativeIterator, "_look_beyond", lambda self: None)
    plain, none, drawn_plain = epochs()
    assert ours == plain and none == [False] * 4
    assert torch.equal(drawn, drawn_plain)


def test_who_draws_from_torchs_generator_meanwhile_gets_what_torch_would_give(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def epochs() -> tuple[list[Any], list[bool]]:
        torch.manual_seed(1)
        loader = loader_of(folder, SAMPLINGS["torch's generator"], seed=5)
        got, begun = [], []
        for _ in range(5):
            got.append(epoch_of(loader))
            begun.append(loader._iterator._foreseen is not None)
            torch.rand(1)
        return got, begun

    ours, begun = epochs()
    assert begun == [True, True, False, False, False]  # and is not tried for ever
    monkeypatch.setattr(NativeIterator, "_look_beyond", lambda self: None)
    assert ours == epochs()[0]


def test_each_epoch_counts_its_own_samples_and_reads(folder: Path) -> None:
    loader = loader_of(folder, SAMPLINGS["own generator"], seed=5, cache="50%")
    for _ in range(3):
        epoch_of(loader)
    for epoch in loader.stats()["epochs"]:
        assert epoch["samples"] == epoch["hits"] + epoch["misses"] == 22
    assert made_before(loader)


def test_a_file_that_changed_after_it_was_foreseen_is_read_anew(folder: Path) -> None:
    loader = loader_of(folder, seed=5)
    before = epoch_of(loader)
    path, _ = loader.dataset.samples[0]
    Image.fromarray(np.full((90, 80, 3), 200, np.uint8)).save(path)
    after = epoch_of(loader)
    assert not made_before(loader) and after[0] != before[0]
    assert after == epoch_of_another(folder, epoch=1)


def epoch_of_another(folder: Path, epoch: int) -> Any:
    loader = loader_of(folder, seed=5, persistent_workers=False)
    for _ in range(epoch):
        epoch_of(loader)
    return epoch_of(loader)


def test_a_pass_left_in_its_tail_leaves_the_next_as_it_is(folder: Path) -> None:
    loader = loader_of(folder, seed=5)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    assert iterator._threads.wait(iterator._window[-1].ticket, 60)
    next(iterator)
    assert iterator._foreseen is not None
    del iterator
    assert epoch_of(loader) == epoch_of_another(folder, epoch=1)


def test_a_state_taken_in_the_tail_is_gone_on_with(folder: Path) -> None:
    loader = loader_of(folder, SAMPLINGS["own generator"], seed=5)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    state = loader.state_dict()
    rest = [images.numpy().tobytes() for images, _ in iterator]
    second = epoch_of(loader)
    again = loader_of(folder, SAMPLINGS["own generator"], seed=5)
    again.load_state_dict(state)
    assert [images for images, _ in epoch_of(again)] == rest
    assert epoch_of(again) == second
    loader.load_state_dict(state)
    assert [images for images, _ in epoch_of(loader)] == rest


def test_a_forked_child_makes_its_own(folder: Path, nothing_left: None) -> None:
    loader = loader_of(folder, seed=5)
    epoch_of(loader)
    assert loader._iterator._foreseen is not None
    expected = epoch_of_another(folder, epoch=1)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if epoch_of(loader) == expected and not made_before(loader) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert epoch_of(loader) == expected and made_before(loader)
    del loader
    gc.collect()


def test_no_more_is_ahead_than_torch_would_have(folder: Path) -> None:
    loader = loader_of(folder, seed=5, prefetch_factor=1)
    for _ in loader:
        iterator = loader._iterator
        foreseen = 0 if iterator._foreseen is None else len(iterator._foreseen)
        assert len(iterator._window) + foreseen <= 2
    assert len(loader._iterator._foreseen) == 2


@pytest.mark.parametrize("more", [{"persistent_workers": False}, {"num_workers": 0}], ids=str)
def test_other_loaders_leave_nothing_behind_a_pass(
    folder: Path, more: dict[str, Any], nothing_left: None
) -> None:
    chosen = {"num_workers": 2, "persistent_workers": False, **more}
    loader = loader_of(folder, seed=5, **chosen)
    epoch_of(loader)
    gc.collect()
    assert native_threads() == []


def test_a_loader_let_go_of_after_a_pass_leaves_nothing(folder: Path, nothing_left: None) -> None:
    loader = loader_of(folder, seed=5)
    epoch_of(loader)
    assert native_threads()
    del loader
    gc.collect()
    assert native_threads() == []


class WithoutLength(torch.utils.data.Sampler):
    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(range(22))


class HoldsAFile(WithoutLength):
    def __init__(self) -> None:
        self.file = open(os.devnull)  # noqa: SIM115 - __del__ closes it

    def __len__(self) -> int:
        return 22

    def __iter__(self):  # type: ignore[no-untyped-def]
        assert not self.file.closed
        return super().__iter__()

    def __del__(self) -> None:
        self.file.close()


def outcomes(loader: Any) -> list[Any]:
    """Of an epoch: how many samples each minibatch has, or what was raised in its place."""
    iterator, seen = iter(loader), []
    while True:
        try:
            seen.append(len(next(iterator)[1]))
        except StopIteration:
            return seen
        except Exception as error:
            seen.append(type(error).__name__)


SAMPLERS = {
    "without a length": WithoutLength,
    "that owns a file": HoldsAFile,
    "that is a view of a dict": lambda: dict.fromkeys(range(22)).keys(),
    "with an index too many": lambda: [*range(21), 99],
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_of_any_kind_give_what_torch_gives(folder: Path, sampler: str) -> None:
    seen = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        data = coordl.ImageFolder(folder, train_transform())
        loader = kind(data, 4, sampler=SAMPLERS[sampler](), num_workers=2, persistent_workers=True)
        seen.append([outcomes(loader) for _ in range(3)])
    assert seen[0] == seen[1]


def test_a_guess_that_fails_costs_the_pass_nothing(folder: Path) -> None:
    sampler = WeightedRandomSampler(torch.ones(22).double(), 22)
    loader = loader_of(folder, lambda data: {"sampler": sampler})
    for _ in range(2):
        iterator = iter(loader)
        next(iterator)
        sampler.weights.zero_()  # in mid-epoch there is nothing to draw from
        assert [len(targets) for _, targets in iterator] == [4, 4, 4, 4, 2]
        sampler.weights.add_(1.0)


def test_what_could_not_be_read_in_the_tail_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = loader_of(folder, seed=5)
    expected = epoch_of_another(folder, epoch=1)
    epoch_of(loader)
    failed = loader._iterator._foreseen._made[0]

    def failed_reads(minibatch: Any) -> bool:
        if minibatch is failed:
            minibatch.buffer.array([64], "uint8").fill(0)  # as if nothing had been made
        return minibatch is failed

    monkeypatch.setattr("coordl.delivery.native_epoch.Minibatch.failed_reads", failed_reads)
    assert epoch_of(loader) == expected and made_before(loader)
