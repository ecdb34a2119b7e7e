"""Bad samples: named, left out, replaced; counted and listed."""

from __future__ import annotations

import random
import re
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from recipe import native_threads, train_transform
from stateful_parts import WithoutState, identity

import coordl
from coordl import transforms as T
from coordl.delivery.on_error import SHOWN

BAD = (2, 9, 10, 11)


class Spotty(torch.utils.data.Dataset):
    """Numbers of which some cannot be made."""

    def __init__(self, bad: tuple[int, ...] = BAD, size: int = 22) -> None:
        self.bad, self.size = bad, size
        self.samples = [(f"/data/{number}.bin", 0) for number in range(size)]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index in self.bad:
            raise RuntimeError(f"number {index} is bad")
        return index


class InBatches(Spotty):
    def __getitem__(self, index: int) -> int:
        raise AssertionError("it is asked for minibatches")

    def __getitems__(self, indices: list[int]) -> list[int]:
        return [Spotty.__getitem__(self, index) for index in indices]


def ten_more(error: coordl.ItemError) -> Any:
    return coordl.SKIP if error.index == 9 else error.index + 100


def spoil(data: coordl.ImageFolder, bad: tuple[int, ...] = BAD) -> None:
    for index in bad:
        Path(data.samples[index][0]).write_bytes(b"no picture at all")


def targets(batches: list[Any]) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches]


def without(bad: tuple[int, ...], size: int = 22, batch: int = 4) -> list[list[int]]:
    parts = [range(at, min(size, at + batch)) for at in range(0, size, batch)]
    left = [[number for number in part if number not in bad] for part in parts]
    return [part for part in left if part]


@pytest.mark.parametrize(("kind", "seed"), [(Spotty, None), (Spotty, 3), (InBatches, None)])
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_left_out_counted_and_listed(
    kind: type[Spotty], workers: int, seed: int | None
) -> None:
    loader = coordl.DataLoader(
        kind(), 4, num_workers=workers, on_error="skip", seed=seed, collate_fn=identity
    )
    for _ in range(2):
        assert list(loader) == without(BAD)
    for record in loader.stats()["epochs"]:
        assert (record["samples"], record["skipped"], record["replaced"]) == (18, 4, 0)
        assert [(index, path) for index, path, _ in record["bad_samples"]] == [
            (index, f"/data/{index}.bin") for index in BAD
        ]
        assert record["bad_samples"][0][2] == "sample 2, /data/2.bin: number 2 is bad"
    assert loader.stats()["total"]["skipped"] == 8
    assert loader.on_error == "skip"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_function_puts_another_in_their_place_or_leaves_them_out(workers: int) -> None:
    loader = coordl.DataLoader(
        Spotty(), 4, num_workers=workers, on_error=ten_more, collate_fn=identity
    )
    expected = [[n + 100 if n in BAD else n for n in part] for part in without((9,))]
    assert list(loader) == expected
    record = loader.stats()["epochs"][0]
    assert (record["skipped"], record["replaced"], len(record["bad_samples"])) == (1, 3, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_minibatch_of_bad_samples_only_is_passed_over(workers: int) -> None:
    bad = tuple(range(8))
    loader = coordl.DataLoader(Spotty(bad), 4, num_workers=workers, on_error="skip")
    assert [batch.tolist() for batch in loader] == without(bad)
    loader = coordl.DataLoader(Spotty(tuple(range(22))), 4, num_workers=workers, on_error="skip")
    assert list(loader) == []
    loader = coordl.DataLoader(Spotty(), None, num_workers=workers, on_error="skip")
    assert [[int(number)] for number in loader] == without(BAD, batch=1)
    assert loader.stats()["total"]["skipped"] == 4


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch", [4, None])
def test_an_error_keeps_its_class_and_names_its_sample(workers: int, batch: int | None) -> None:
    loader = coordl.DataLoader(Spotty(), batch, num_workers=workers)
    iterator = iter(loader)
    with pytest.raises(RuntimeError, match="number 2 is bad") as caught:
        for _ in range(3):
            next(iterator)
    assert type(caught.value) is RuntimeError
    assert "sample 2, /data/2.bin" in "".join(traceback.format_exception(caught.value))
    following = next(iterator)  # who goes on gets the next one, as ever
    assert int(torch.as_tensor(following).flatten()[0]) == (4 if batch else 3)


def test_an_error_of_a_whole_minibatch_names_those_it_is_of() -> None:
    with pytest.raises(RuntimeError) as caught:
        next(iter(coordl.DataLoader(InBatches(), 4)))
    assert "in the minibatch of samples 0, 1, 2, 3" in caught.value.__notes__


def test_a_subset_names_its_own_index_and_the_right_path() -> None:
    part = torch.utils.data.Subset(torch.utils.data.Subset(Spotty(), range(1, 22)), [7, 8, 0])
    loader = coordl.DataLoader(part, 3, on_error="skip", collate_fn=identity)
    assert list(loader) == [[8, 1]]
    assert loader.stats()["epochs"][0]["bad_samples"][0][:2] == (1, "/data/9.bin")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["native", "python", "prefix"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_image_folders_leave_out_what_does_not_decode(
    folder: Path, workers: int, how: str, channels_last: bool
) -> None:
    transform = train_transform(16)
    if how == "prefix":
        transform = T.Compose([*transform.transforms, identity])
    data = coordl.ImageFolder(folder, transform, target_transform=float)
    more: dict[str, Any] = {"seed": 4, "prep": "auto" if how == "prefix" else how}
    if channels_last:
        more["memory_format"] = torch.channels_last
    whole = torch.cat([images for images, _ in coordl.DataLoader(data, 4, **more)])
    spoil(data, (*BAD, 8))
    loader = coordl.DataLoader(data, 4, num_workers=workers, on_error="skip", **more)
    got = list(loader)
    expected = without((*BAD, 8))
    assert targets(got) == [[float(data.targets[n]) for n in part] for part in expected]
    for (images, _), part in zip(got, expected, strict=True):
        assert torch.equal(images, whole[part])
        if channels_last:
            assert images.is_contiguous(memory_format=torch.channels_last)
    record = loader.stats()["epochs"][0]
    assert (record["samples"], record["skipped"]) == (17, 5)
    assert [entry[:2] for entry in record["bad_samples"]] == [
        (index, data.samples[index][0]) for index in sorted((*BAD, 8))
    ]
    assert native_threads() == []


def test_a_natively_made_minibatch_takes_replacements(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    spoil(data)
    kinds = []

    def instead(error: coordl.ItemError) -> Any:
        kinds.append(type(error).__name__)
        return torch.rand(3, 16, 16) + error.index, 70 + error.index

    loader = coordl.DataLoader(data, 4, seed=2, on_error=instead)
    for workers in (0, 2):
        again = coordl.DataLoader(data, 4, seed=2, on_error=instead, num_workers=workers)
        torch.manual_seed(workers)
        got, other = list(loader), list(again)
        loader = coordl.DataLoader(data, 4, seed=2, on_error=instead)
        assert all(torch.equal(a[0], b[0]) for a, b in zip(got, other, strict=True))
        assert got[0][1].tolist() == [data.targets[0], data.targets[1], 72, data.targets[3]]
        assert got[0][0][2].min() >= 2 and got[0][0][2].max() <= 3
    assert set(kinds) == {"ItemUnidentifiedImageError"}


def test_a_replacement_that_does_not_fit_is_refused(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    spoil(data)
    for wrong in ((torch.zeros(3, 8, 8), 0), (torch.zeros(3, 16, 16).int(), 0)):
        loader = coordl.DataLoader(data, 4, on_error=lambda error, w=wrong: w)
        with pytest.raises(ValueError, match=r"what on_error returned .* \(3, 16, 16\)") as caught:
            next(iter(loader))
        assert str(caught.value).startswith(f"sample 2, {data.samples[2][0]}: ")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["native", "python"])
def test_a_function_that_forgets_to_return_is_told_so(folder: Path, how: str, workers: int) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    spoil(data)
    seen: list[int] = []
    loader = coordl.DataLoader(
        data, 4, num_workers=workers, prep=how, on_error=lambda error: seen.append(error.index)
    )
    expected = f"sample 2, {data.samples[2][0]}: on_error returned None in its place"
    with pytest.raises(ValueError, match=re.escape(expected)):
        next(iter(loader))


def test_a_target_that_fails_is_the_samples_error(folder: Path) -> None:
    def only_low(target: int) -> int:
        if target == 2:
            raise KeyError("no such class")
        return target

    data = coordl.ImageFolder(folder, train_transform(16), target_transform=only_low)
    loader = coordl.DataLoader(data, 4, on_error="skip", prep="native")
    assert {target for batch in targets(list(loader)) for target in batch} == {0, 1}
    assert loader.stats()["total"]["skipped"] == data.targets.count(2)
    with pytest.raises(KeyError) as caught:
        list(coordl.DataLoader(data, 22))
    first = data.targets.index(2)
    assert f"sample {first}, {data.samples[first][0]}" in caught.value.__notes__


@pytest.mark.parametrize("how", ["native", "python"])
def test_a_resumed_pass_counts_what_was_left_out_as_consumed(folder: Path, how: str) -> None:
    data = coordl.ImageFolder(folder, train_transform(16))
    spoil(data, (0, 1, 2, 3, 6, 9))
    more: dict[str, Any] = {"on_error": "skip", "seed": 1, "prep": how}
    whole = list(coordl.DataLoader(data, 4, **more))
    for workers in (0, 2):
        first = coordl.DataLoader(data, 4, num_workers=workers, **more)
        iterator = iter(first)
        got = [next(iterator), next(iterator)]
        state = first.state_dict()
        assert state["samples"] == 12
        second = coordl.DataLoader(data, 4, **more)
        second.load_state_dict(state)
        got += list(second)
        assert all(
            torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
            for a, b in zip(got, whole, strict=True)
        )


class DrawsThenFails(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> float:
        drawn = random.random() + float(np.random.rand()) + float(torch.rand(()))
        if drawn < 1.2:
            raise ValueError("an unlucky draw")
        return drawn


def test_skips_are_the_same_for_a_seed_and_an_epoch() -> None:
    runs = []
    for workers in (0, 1, 2):
        loader = coordl.DataLoader(
            DrawsThenFails(), 8, num_workers=workers, seed=7, on_error="skip", collate_fn=identity
        )
        epochs = [list(loader), list(loader)]
        records = loader.stats()["epochs"]
        runs.append((epochs, [record["bad_samples"] for record in records]))
        assert records[0]["skipped"] > 0 and epochs[0] != epochs[1]
    assert runs[1:] == runs[:1] * 2


def test_only_the_first_are_listed() -> None:
    loader = coordl.DataLoader(Spotty(tuple(range(40)), 60), 8, on_error="skip")
    list(loader)
    record = loader.stats()["epochs"][0]
    assert record["skipped"] == 40
    assert [index for index, _, _ in record["bad_samples"]] == list(range(SHOWN))


def test_what_is_no_samples_fault_is_raised() -> None:
    class OutOfMemory(Spotty):
        def __getitem__(self, index: int) -> int:
            raise MemoryError

    with pytest.raises(MemoryError):
        next(iter(coordl.DataLoader(OutOfMemory(), on_error="skip")))
    table = [1, 2, 3]
    with pytest.raises(IndexError):  # the sampler's
        list(coordl.DataLoader(table, sampler=[0, 3], on_error="skip"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("on_error", "kind"), [("ignore", ValueError), (None, TypeError), (3, TypeError)]
)
def test_what_on_error_cannot_be_is_refused(on_error: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="on_error is 'raise', 'skip' or a function"):
        coordl.DataLoader(Spotty(), on_error=on_error)


def test_iterable_data_sets_pass_over_bad_samples_themselves() -> None:
    with pytest.raises(ValueError, match="data sets with an index"):
        coordl.DataLoader(WithoutState([4]), on_error="skip")
