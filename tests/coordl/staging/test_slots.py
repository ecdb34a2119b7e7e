"""Slots alone: leases, limits, and memory that cannot be had."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import staged_data as data
import torch
from same import assert_same

import coordl
from coordl.staging import memory, worker
from coordl.staging.slots import Slot, SlotName, SlotPool


def filled(pool: SlotPool, size: int = 8192) -> Slot:
    slot = pool.take()
    os.ftruncate(slot.name.fd, size)
    return slot


def test_a_slot_is_free_when_the_last_view_of_its_lease_dies(nothing_left: None) -> None:
    pool = SlotPool()
    pool.limit = 1
    slot = filled(pool)
    array = pool.lease(slot, 8192)
    part = torch.from_numpy(array[10:20])
    del array
    assert pool.take() is not slot
    del part
    assert pool.take() is slot


def test_slots_beyond_the_limit_are_used_once(nothing_left: None) -> None:
    pool = SlotPool()
    pool.limit = 2
    slots = [filled(pool) for _ in range(3)]
    assert [slot.once for slot in slots] == [False, False, True]
    arrays = [pool.lease(slot, 8192) for slot in slots]
    arrays[2][:] = 7
    assert not slots[2].open and arrays[2].sum() == 7 * 8192
    del arrays
    assert pool.stats()["slots"] == 2
    assert {pool.take().name.number for _ in range(2)} == {0, 1}


def test_a_lease_outlives_its_pool(nothing_left: None) -> None:
    pool = SlotPool()
    slot = filled(pool)
    array = pool.lease(slot, 8192)
    del pool, slot
    gc.collect()
    array[:] = 3
    assert array.sum() == 3 * 8192


def test_a_slot_that_grew_is_mapped_anew(nothing_left: None) -> None:
    pool = SlotPool()
    pool.limit = 1
    slot = filled(pool)
    first = pool.lease(slot, 8192)
    first[:] = 1
    os.ftruncate(slot.name.fd, 1 << 20)
    second = pool.lease(slot, 1 << 20)
    assert len(second) == 1 << 20 and np.array_equal(second[:8192], first)


def test_a_descriptor_that_is_another_file_by_now_is_not_opened(nothing_left: None) -> None:
    pool = SlotPool()
    slot = filled(pool)
    stale = SlotName(0, slot.name.fd, slot.name.inode + 1, once=False)
    with pytest.raises(FileNotFoundError, match="slot 0 is gone"):
        stale.open(os.getpid())
    os.close(slot.name.open(os.getpid()))


def test_without_memory_minibatches_come_as_torch_sends_them(
    monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    monkeypatch.setattr(worker, "room", lambda: 0)  # forked workers inherit it
    loader = coordl.DataLoader(
        data.Structures("tuple"), 4, num_workers=1, multiprocessing_context="fork"
    )
    assert_same(list(loader), list(torch.utils.data.DataLoader(data.Structures("tuple"), 4)))
    staging = loader.stats()["staging"]
    assert staging["as_torch"] == len(loader) and "no memory for a slot" in staging["why"]


def test_room_keeps_some_memory_free(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {
        "cgroup_bytes": 4 << 30,
        "cgroup_free_bytes": 1 << 30,
        "memory_bytes": 64 << 30,
        "memory_free_bytes": 32 << 30,
    }
    monkeypatch.setattr(memory._native, "memory_limits", lambda: limits)
    assert memory.room() == (1 << 30) - (256 << 20)
    limits["cgroup_free_bytes"] = 1 << 20
    assert memory.room() == 0
    limits["cgroup_free_bytes"] = limits["cgroup_bytes"] = None
    assert memory.room() == (32 << 30) - int(0.05 * (64 << 30))


def test_plan_says_how_minibatches_come() -> None:
    staged = "staging: plain CPU tensors in shared slots"
    assert staged in coordl.DataLoader(data.Structures("tuple"), num_workers=1).plan()
    assert staged not in coordl.DataLoader(data.Structures("tuple")).plan()
    assert coordl.DataLoader(data.Structures("tuple")).stats()["staging"] is None
