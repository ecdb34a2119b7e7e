"""Native threads whose items another server is asked for: provided or read, each ends once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordl import _native
from coordl.fetch.item import identify
from coordl.fetch.source import FolderItems

COUNT = 12
KEY = (5, 0)


@pytest.fixture
def job(tmp_path: Path, photos: list[Path]) -> Any:
    return Job(tmp_path, photos)


class Job:
    """Twelve pictures, and workers over them; a hundredth of an item may be read ahead."""

    def __init__(self, root: Path, photos: list[Path], **options: Any) -> None:
        paths = []
        for number in range(COUNT):
            paths.append(str(root / f"{number:02}.jpg"))
            Path(paths[-1]).write_bytes(photos[number % len(photos)].read_bytes())
        self.items = identify(paths)
        self.data = [Path(path).read_bytes() for path in paths]
        self.pass_ = _native.Pass(geometry="resize_center_crop", out_height=32, out_width=32)
        self.pool = _native.BufferPool(8)
        self.arena = _native.Arena.open("asked", 16 << 20, 100)
        self.tiers = _native.Tiers(self.arena)
        given = {"servers": 2, "handover_bytes": 64 << 20, **options}
        self.workers = _native.Workers(
            FolderItems(paths, self.items, None).table,
            self.pass_,
            self.tiers,
            1,
            4,
            1000,
            "original",
            **given,
        )
        self.expected = [self.prepared(row) for row in range(COUNT)]

    def prepared(self, row: int) -> np.ndarray:
        out = np.empty((3, 32, 32), np.float32)
        assert _native.prepare(self.data[row], self.pass_, *KEY, row, out)
        return out

    def ticket(self, rows: list[int]) -> Any:
        numbers = np.array(rows, np.int64)
        return self.workers.ticket(numbers, numbers, *KEY)

    def sum(self, row: int, data: bytes) -> int:
        return _native.checksum(data, *self.items.keys[row].tolist())

    def provide(self, ticket: Any, at: int, row: int) -> bool:
        return self.workers.provide(ticket, at, self.data[row], self.sum(row, self.data[row]))

    def submitted(self, ticket: Any) -> Any:
        buffer = self.pool.take(len(ticket) * self.pass_.sample_bytes)
        self.workers.submit(ticket, buffer)
        return buffer

    def check(self, ticket: Any, buffer: Any, rows: list[int]) -> None:
        assert self.workers.wait(ticket, 20.0)
        assert ticket.exceptions() == []
        found = buffer.array([len(rows), 3, 32, 32], "float32")
        assert all(np.array_equal(found[at], self.expected[row]) for at, row in enumerate(rows))

    def end(self) -> None:
        self.workers.close()
        self.arena.close()


@pytest.mark.parametrize("first", ["provide", "submit"])
def test_provided_rows_are_prepared_and_nothing_is_read_for_them(job, first) -> None:
    rows = [0, 1, 2, 3]
    ticket = job.ticket(rows)
    job.workers.announce(ticket, np.array([1, 3], np.int64))
    if first == "submit":
        buffer = job.submitted(ticket)
        assert not job.workers.wait(ticket, 0.1)
    assert job.provide(ticket, 1, 1) and job.provide(ticket, 3, 3)
    assert job.provide(ticket, 3, 3)  # nobody waits for it any more
    if first == "provide":
        buffer = job.submitted(ticket)
    job.check(ticket, buffer, rows)
    counted = job.workers.counters()
    assert (counted["remote_hits"], counted["misses"], counted["hits"]) == (2, 2, 0)
    assert counted["remote_bytes"] == len(job.data[1]) + len(job.data[3])
    assert job.arena.find(*job.items.keys[1].tolist()) is None  # its owner has it
    job.end()


def test_what_is_not_the_item_is_refused_and_may_be_read_instead(job) -> None:
    ticket = job.ticket([0])
    job.workers.announce(ticket, np.array([0], np.int64))
    right, other, cut = job.data[0], job.data[1], job.data[0][:-1]
    packed = _native.recode(right, "packed")
    half = packed[: len(packed) // 2]
    give = job.workers.provide
    assert not give(ticket, 0, right, job.sum(0, right) ^ 1)  # damaged on the way
    assert not give(ticket, 0, right, _native.checksum(right, 1, 2))  # another item's
    assert not give(ticket, 0, other, job.sum(0, other))  # another length than the file's
    assert not give(ticket, 0, cut, job.sum(0, cut))
    assert not give(ticket, 0, half, job.sum(0, half))  # its structure is damaged
    assert not give(ticket, 0, b"", job.sum(0, b""))
    huge = packed + bytes(5 * len(right) + (64 << 10))
    assert not give(ticket, 0, huge, job.sum(0, huge))
    job.workers.read(ticket, np.array([0], np.int64), "here")
    buffer = job.submitted(ticket)
    job.check(ticket, buffer, [0])
    assert job.arena.find(*job.items.keys[0].tolist()) is not None
    assert job.workers.counters()["remote_hits"] == 0
    job.end()


def test_what_is_read_for_an_owner_is_handed_over_and_not_held_here(job) -> None:
    rows = [0, 1, 2]
    ticket = job.ticket(rows)
    job.workers.announce(ticket, np.array(rows, np.int64))
    for keeper, at in (("owner", 0), ("nobody", 1), ("here", 2)):
        job.workers.read(ticket, np.array([at], np.int64), keeper)
    job.check(ticket, job.submitted(ticket), rows)
    ((high, low, data),) = job.workers.handed_over(5.0)
    assert [high, low] == job.items.keys[0].tolist()
    assert data == job.data[0]
    held = [job.arena.find(*key) is not None for key in job.items.keys[:3].tolist()]
    assert held == [False, False, True]
    assert job.workers.handed_over(0.0) == []
    job.end()


def test_more_than_may_wait_for_an_owner_is_dropped(tmp_path, photos) -> None:
    job = Job(tmp_path, photos, handover_bytes=os.path.getsize(photos[0]) + 10)
    rows = [0, 4, 8]  # three of the same size
    ticket = job.ticket(rows)
    job.workers.announce(ticket, np.array([0, 1, 2], np.int64))
    job.workers.read(ticket, np.array([0, 1, 2], np.int64), "owner")
    job.check(ticket, job.submitted(ticket), rows)
    assert len(job.workers.handed_over(5.0)) == 1
    job.end()


def test_rows_that_come_late_do_not_wait_for_what_later_ones_hold(job) -> None:
    """With hardly room to read ahead, an early row falls back when later rows were read already."""
    # given three minibatches announced, whose first rows are asked for
    batches = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    tickets = [job.ticket(rows) for rows in batches]
    for ticket in tickets:
        job.workers.announce(ticket, np.array([0], np.int64))
    # when the fall-backs come last first, and the consumer has submitted the first only
    buffers = [job.submitted(tickets[0])]
    for ticket in reversed(tickets):
        job.workers.read(ticket, np.array([0], np.int64), "owner")
    # then every minibatch ends
    for at, (ticket, rows) in enumerate(zip(tickets, batches, strict=True)):
        job.check(ticket, buffers[at], rows)
        if at < 2:
            buffers.append(job.submitted(tickets[at + 1]))
    job.end()


def test_rows_asked_for_that_nobody_ends_do_not_hold_up_the_end(job) -> None:
    ticket = job.ticket([0, 1])
    job.workers.announce(ticket, np.array([0], np.int64))
    job.submitted(ticket)
    job.workers.close()
    assert job.provide(ticket, 0, 0)  # too late, and harmless
    job.workers.read(ticket, np.array([0], np.int64), "here")
    job.end()


def test_wrong_rows_are_refused(job) -> None:
    job.arena.admit(*job.items.keys[0].tolist(), job.data[0])
    with pytest.raises(ValueError, match="lacks nothing"):
        job.workers.announce(job.ticket([0]), np.array([0], np.int64))
    with pytest.raises(IndexError):
        job.workers.announce(job.ticket([1]), np.array([7], np.int64))
    with pytest.raises(ValueError, match="keeper 'me' is unknown"):
        job.workers.read(job.ticket([1]), np.array([0], np.int64), "me")
    job.end()
