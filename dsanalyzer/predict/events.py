"""A clock for simulations, and what users share: cores, a disk, a link, a limited volume."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Event = Callable[[], None]


class Clock:
    """Runs callbacks in the order of their times. Times in seconds, from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int]] = []
        self._events: dict[int, Event] = {}
        self._number = count()  # events of one moment run in the order in which they were set

    def at(self, moment: float, event: Event) -> int:
        """Calls `event` at `moment`; the number returned is what `cancel` takes."""
        number = next(self._number)
        self._events[number] = event
        heapq.heappush(self._due, (max(moment, self.now), number))
        return number

    def cancel(self, number: int) -> None:
        """It will not be called, and the clock does not wait for it."""
        self._events.pop(number, None)

    def run(self) -> None:
        """Until nothing is due any more."""
        while self._due:
            moment, number = heapq.heappop(self._due)
            event = self._events.pop(number, None)
            if event is not None:
                self.now = moment
                event()


class Shared:
    """A resource that its users share: equally, as time slices do, or one after the other.

    Args:
        rate_at: total work per second with n users, for n >= 1. Cores: min(n, cores). A disk: its
            rate at queue depth n.
        in_turn: the first to come is served first, as reads are. (Shared equally, reads that start
            together would end together, and workers would march in step as they do nowhere.)

    Work is kept in virtual time (what one user has been given since the start), so that arrivals
    and departures cost a heap operation, not a pass over all users.
    """

    def __init__(
        self, clock: Clock, rate_at: Callable[[int], float], *, in_turn: bool = False
    ) -> None:
        self.work_done = 0.0
        self.busy_s = 0.0  # during which there was at least one user
        self._clock = clock
        self._rate_at = rate_at
        self._in_turn = in_turn
        self._last = 0.0  # where the last in turn ends
        self._users: list[tuple[float, int, Event]] = []
        self._number = count()
        self._given = 0.0
        self._since = 0.0
        self._timer = -1

    def use(self, work: float, done: Event) -> None:
        """`done` is called when `work` has been given; no work is done at once."""
        if work <= 0:
            done()
            return
        self._advance()
        begin = max(self._given, self._last) if self._in_turn else self._given
        self._last = begin + work
        heapq.heappush(self._users, (self._last, next(self._number), done))
        self._set_timer()

    def _advance(self) -> None:
        elapsed, users = self._clock.now - self._since, len(self._users)
        self._since = self._clock.now
        if users and elapsed > 0:
            given = self._rate_at(users) * elapsed
            self._given += given if self._in_turn else given / users
            self.work_done += given
            self.busy_s += elapsed

    def _set_timer(self) -> None:
        self._clock.cancel(self._timer)
        users = len(self._users)
        if users:
            left = max(0.0, self._users[0][0] - self._given)
            share = self._rate_at(users) / (1 if self._in_turn else users)
            moment = self._clock.now + left / share
            self._timer = self._clock.at(moment, self._serve)

    def _serve(self) -> None:
        self._advance()
        # The one it was set for, whatever rounding says, and all that end in the same moment.
        end = max(self._given, self._users[0][0])
        finished = []
        while self._users and self._users[0][0] <= end * (1 + 1e-12):
            finished.append(heapq.heappop(self._users)[2])
        self._set_timer()
        for done in finished:
            done()


class Limited:
    """A resource that is fast but held to a rate, as cloud volumes and throttled disks are.

    What it has not given for up to `burst_s` it may give at once, so that users who pause, as
    workers do while they prepare, lose nothing by it: where a disk's idle moment is gone, a limit's
    is credit.

    Source: the generic cell rate algorithm (ITU-T I.371).
    """

    def __init__(self, clock: Clock, rate: float, burst_s: float) -> None:
        self.work_done = 0.0
        self.busy_s = 0.0  # what the work takes at the rate
        self._clock = clock
        self._rate = rate
        self._burst_s = burst_s
        self._due = -burst_s  # when all work so far is given, had it begun with no credit

    def use(self, work: float, done: Event) -> None:
        """`done` is called when the limit lets `work` through; no work, or with credit, at once."""
        if work <= 0:
            done()
            return
        lasts = work / self._rate
        self._due = max(self._due, self._clock.now - self._burst_s) + lasts
        self.work_done += work
        self.busy_s += lasts
        self._clock.at(self._due, done)
