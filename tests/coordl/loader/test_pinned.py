"""pin_memory=True: minibatches are made in pinned memory, and stay while a copy reads them."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe import train_transform

import coordl
from coordl import transforms as T
from coordl.delivery import native_epoch

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


FORMATS = {
    "float32": train_transform(),
    "uint8": T.Compose([T.RandomResizedCrop(32), T.PILToTensor()]),
    "bfloat16": T.Compose(
        [T.RandomResizedCrop(32), T.PILToTensor(), T.ConvertImageDtype(torch.bfloat16)]
    ),
}


def loader_of(
    folder: Path, transform: Any = FORMATS["float32"], **options: Any
) -> coordl.DataLoader:
    data = coordl.ImageFolder(folder, transform)
    return coordl.DataLoader(data, 4, seed=3, shuffle=True, prep="native", **options)


def epochs_of(loader: coordl.DataLoader, epochs: int = 2) -> list[list[torch.Tensor]]:
    torch.manual_seed(7)  # of the order
    return [list(batch) for _ in range(epochs) for batch in loader]


def assert_same(given: list[list[torch.Tensor]], wanted: list[list[torch.Tensor]]) -> None:
    assert len(given) == len(wanted)
    for (images, labels), (images_wanted, labels_wanted) in zip(given, wanted, strict=True):
        assert torch.equal(images, images_wanted) and torch.equal(labels, labels_wanted)


@contextlib.contextmanager
def torchs_memory() -> Iterator[list[weakref.ref]]:
    """Loaders take ordinary memory of torch's, as they would pinned; gives what was lent."""
    lent: list[weakref.ref] = []

    def ordinary(size: int) -> torch.Tensor:
        memory = torch.empty(size, dtype=torch.uint8)
        lent.append(weakref.ref(memory))
        return memory

    made = coordl.DataLoader._native_epoch

    def epoch(loader: Any, route: Any, position: Any, pinned: bool) -> Any:
        return made(loader, route, position, True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_epoch, "pinned_memory", ordinary)
        patch.setattr(coordl.DataLoader, "_native_epoch", epoch)
        yield lent


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("transform", FORMATS.values(), ids=FORMATS)
def test_minibatches_over_torchs_memory_are_the_same(
    folder: Path, transform: Any, workers: int
) -> None:
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    wanted = epochs_of(loader_of(folder, transform, **options))
    with torchs_memory() as lent:
        given = epochs_of(loader_of(folder, transform, **options))
    assert len(lent) >= len(given)  # the tail of the last epoch looks beyond it
    assert_same(given, wanted)
    for (images, _), (like, _) in zip(given, wanted, strict=True):
        assert (images.dtype, images.stride()) == (like.dtype, like.stride())


def test_torchs_memory_is_kept_by_what_is_being_made_and_no_longer(folder: Path) -> None:
    with torchs_memory() as lent:
        iterator = iter(loader_of(folder, num_workers=2))
        images, _ = next(iterator)
        kept = images.clone()
        del iterator  # while the next ones are being made
    gc.collect()
    assert lent and not any(memory() is not None for memory in lent)
    assert torch.equal(images, kept)


@gpu
@pytest.mark.parametrize("workers", [0, 4])
def test_images_are_made_in_pinned_memory(folder: Path, workers: int) -> None:
    plain = epochs_of(loader_of(folder, num_workers=workers))
    pinned = epochs_of(loader_of(folder, num_workers=workers, pin_memory=True))
    assert_same(pinned, plain)
    for images, labels in pinned:
        assert images.is_pinned() and labels.is_pinned()


@gpu
def test_a_copy_that_is_still_queued_keeps_its_minibatch(folder: Path) -> None:
    """Each minibatch is let go while the copy of it, or of a part, waits on a busy stream."""
    wanted = epochs_of(loader_of(folder, train_transform(224), num_workers=4), 30)
    side, copies = torch.cuda.Stream(), []
    loader = loader_of(folder, train_transform(224), num_workers=4, pin_memory=True)
    torch.manual_seed(7)
    for number in range(30):
        for images, labels in loader:
            with torch.cuda.stream(side):
                torch.cuda._sleep(20_000_000)  # some 10 ms
                whole = number % 2 == 0
                source = images if whole else images[1:]
                copies.append((whole, source.to("cuda", non_blocking=True), labels))
            del images, source
    torch.cuda.synchronize()
    for (whole, images, labels), (images_wanted, labels_wanted) in zip(copies, wanted, strict=True):
        assert torch.equal(images.cpu(), images_wanted if whole else images_wanted[1:])
        assert torch.equal(labels, labels_wanted)


@gpu
def test_python_workers_hand_on_pinned_minibatches(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 4, num_workers=2, prep="python", pin_memory=True)
    for images, labels in loader:
        assert images.is_pinned() and labels.is_pinned()
