"""What was yielded is the user's as long as a tensor over it lives, whatever happens meanwhile."""

from __future__ import annotations

import gc
import io
import os
import pickle
import threading
from typing import Any

import pytest
import staged_data as data
import torch
from leftovers import descriptors, slots_mapped
from same import assert_same

import coordl


def loader_of(**more: Any) -> coordl.DataLoader:
    return coordl.DataLoader(data.Structures("tuple"), 2, **{"num_workers": 2, **more})


def expected() -> list[Any]:
    return list(torch.utils.data.DataLoader(data.Structures("tuple"), 2))


def test_a_list_of_minibatches_keeps_all_of_them(nothing_left: None) -> None:
    loader = loader_of(prefetch_factor=1)
    kept = list(loader) + list(loader)
    assert_same(kept, expected() + expected())
    staging = loader.stats()["staging"]
    assert staging["once"] > 0 and staging["slots"] <= 2 + 4


def test_kept_minibatches_cost_no_descriptors(nothing_left: None) -> None:
    loader = loader_of(prefetch_factor=1)
    kept = list(loader)
    assert len(kept) > 6
    slots = [name for name in descriptors() if "coordl-slot" in name]
    assert len(slots) <= 6


def test_writing_into_a_minibatch_changes_no_other(nothing_left: None) -> None:
    before: list[Any] = []
    for number, (images, labels) in enumerate(loader_of()):
        assert_same([images, labels], expected()[number])
        images.fill_(-1)
        labels.zero_()
        before.append(images)
    assert all((images == -1).all() for images in before)


def test_slots_are_used_again(nothing_left: None) -> None:
    loader = loader_of(num_workers=1, prefetch_factor=1, persistent_workers=True)
    for _ in range(4):
        addresses = {images.data_ptr() for images, _ in loader}
    assert len(addresses) < len(loader)
    staging = loader.stats()["staging"]
    assert staging["once"] == 0 and staging["slots"] <= 1 + 4
    del loader


def test_labels_that_are_kept_hold_no_slot(nothing_left: None) -> None:
    loader = loader_of()
    labels = [labels for _, labels in loader]
    assert loader.stats()["staging"]["once"] == 0
    assert torch.equal(torch.cat(labels), torch.arange(data.SAMPLES))


def test_a_part_of_a_minibatch_keeps_it_when_all_else_is_gone(nothing_left: None) -> None:
    loader = loader_of()
    iterator = iter(loader)
    row = next(iterator)[0][1, 0]
    wanted = row.clone()
    assert sum(1 for _ in iterator) == len(loader) - 1
    list(loader)
    del iterator, loader
    gc.collect()
    assert torch.equal(row, wanted)
    row += 1
    array = row.numpy()
    del row
    assert (array == wanted.numpy() + 1).all()
    del array
    assert slots_mapped() == 0


def test_a_minibatch_can_be_pickled_saved_shared_and_resized_as_torchs(nothing_left: None) -> None:
    (images, labels), wanted = next(iter(loader_of())), expected()[0]
    assert_same(pickle.loads(pickle.dumps([images, labels])), wanted)
    file = io.BytesIO()
    torch.save(images, file)
    assert file.tell() < images.nbytes + 10_000  # its own bytes, not the slot's
    images.share_memory_()
    assert images.is_shared() and torch.equal(images, wanted[0])
    assert torch.equal(images.resize_(1, 3), wanted[0].flatten()[:3].view(1, 3))
    other = next(iter(loader_of()))[0]
    with pytest.raises(RuntimeError, match="resiz"):
        other.resize_(10**7)


def test_an_iterator_dropped_in_mid_epoch_leaves_nothing(nothing_left: None) -> None:
    for workers in (1, 3):
        iterator = iter(loader_of(num_workers=workers))
        kept = next(iterator)
        del iterator
        assert_same(kept, expected()[0])
        del kept


@pytest.mark.parametrize("seen", [0, 1, 4])
def test_persistent_workers_begin_anew_in_mid_epoch(seen: int, nothing_left: None) -> None:
    loader = loader_of(persistent_workers=True)
    kept = [batch for batch, _ in zip(loader, range(seen), strict=False)]
    assert_same(list(loader), expected())
    assert_same(list(loader), expected())
    assert_same(kept, expected()[:seen])
    del loader


def test_threads_may_have_loaders_of_their_own(nothing_left: None) -> None:
    wanted, wrong = expected(), []

    def consume() -> None:
        for _ in range(2):
            try:
                assert_same(list(loader_of()), wanted)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_iterators_of_one_loader_do_not_meet(nothing_left: None) -> None:
    loader = loader_of()
    pairs = list(zip(loader, loader, strict=True))
    assert_same([a for a, _ in pairs], expected())
    assert_same([b for _, b in pairs], expected())


def test_a_forked_child_sees_the_minibatch_it_inherited(nothing_left: None) -> None:
    loader = loader_of(num_workers=1, prefetch_factor=1, persistent_workers=True)
    iterator = iter(loader)
    images, _ = next(iterator)
    wanted = images.clone()
    begin, (told, tell) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(begin[0], 1)  # until the parent has used all its slots again
        os.write(tell, b"y" if torch.equal(images, wanted) else b"n")
        os._exit(0)
    del images
    for _ in iterator:
        pass
    for _ in range(3):
        assert_same(list(loader), expected())
    os.write(begin[1], b".")
    assert os.read(told, 1) == b"y"
    os.waitpid(child, 0)
    for fd in (*begin, told, tell):
        os.close(fd)
    del iterator, loader


def test_forks_in_every_step_take_no_more_memory(nothing_left: None) -> None:
    loader = loader_of(num_workers=1, persistent_workers=True)
    most = 0
    for _ in range(3):
        for _, _ in loader:
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            most = max(most, slots_mapped())
    assert most <= loader.stats()["staging"]["slots"] + 4
    del loader


def test_a_child_does_not_keep_free_slots(nothing_left: None) -> None:
    loader = loader_of(persistent_workers=True)
    list(loader)
    assert slots_mapped() > 0
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        left = [name for name in descriptors() if "coordl-slot" in name]
        os.write(tell, bytes([slots_mapped(), len(left)]))
        os._exit(0)
    mapped, opened = os.read(told, 2)
    os.waitpid(child, 0)
    os.close(told)
    os.close(tell)
    assert opened == 0 and mapped == 0
    del loader


def test_slots_are_shared_by_the_epochs_of_a_loader(nothing_left: None) -> None:
    loader = loader_of()
    for _ in range(3):
        for _ in loader:
            pass
    staging = loader.stats()["staging"]
    assert staging["slots"] <= 4 + 4 and staging["once"] == 0
    assert slots_mapped() <= staging["slots"]
