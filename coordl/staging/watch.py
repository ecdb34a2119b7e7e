"""The watch over worker processes: what each is at, where it hangs, and what it died of.

Each worker has a berth, a page of memory shared with the consumer. There it notes the minibatch and
the sample it is at; behind it faulthandler writes the stacks of its threads, on a signal that only
we send.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordl import _native
from coordl.fetch.folder import Folder, find_folder
from coordl.prep.keyed import KeyedDataset
from coordl.staging.memory import oom_kills
from coordl.staging.slots import SlotName, memory_file

STALL_S = 60.0  # without a minibatch, until a warning says who is at what
# Nobody's: SIGUSR1 and 2 are taken by schedulers and frameworks.
STACK_SIGNAL = signal.SIGRTMAX - 3
_PAGE = 4096
_STACK_WAIT_S = 1.0
_TASK, _POSITION, _ANSWERS = range(3)


class Beat:
    """What a worker says of itself, in the worker."""

    def __init__(self, fd: int) -> None:
        self._row = _native.SharedMapping(fd, _PAGE).array().view(np.int64)
        self._fd = fd  # open as long as the worker lives: faulthandler writes to it
        self._row[_POSITION] = -1
        before = signal.getsignal(STACK_SIGNAL)
        chain = before not in (signal.SIG_DFL, signal.SIG_IGN, None)
        faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True, chain=chain)
        self._row[_ANSWERS] = 1

    def task(self, number: int) -> None:
        self._row[_TASK] = number
        self._row[_POSITION] = -1

    def at(self, position: int) -> None:
        """Of the sample in its minibatch; -1: between minibatches, or collating."""
        self._row[_POSITION] = position


@dataclass(frozen=True)
class Berth:
    """Where a worker finds its page."""

    name: SlotName

    def taken(self, consumer: int) -> Beat | None:
        """In the worker; None where it cannot be had, and nothing is noted then."""
        try:
            fd = self.name.open(consumer, os.O_APPEND)
            return Beat(fd)
        except (OSError, RuntimeError, ValueError):
            return None


class Watch:
    """The consumer's side, for one iterator."""

    def __init__(self, dataset: Any, workers: int) -> None:
        self._dataset = getattr(dataset, "tended", dataset)
        self._kills = oom_kills()
        self._fds: list[int] = []
        self._read: list[int] = []  # of the stacks
        with suppress(OSError):  # out of descriptors: no berths, and torch will say so
            for _ in range(workers):
                fd = memory_file("coordl-berth")
                self._fds.append(fd)
                self._read.append(_PAGE)
                os.ftruncate(fd, _PAGE)

    def berth(self, worker: int) -> Berth | None:
        if worker >= len(self._fds):
            return None
        fd = self._fds[worker]
        return Berth(SlotName(worker, fd, os.fstat(fd).st_ino, once=False))

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def at(self, worker: int, sent: dict[int, Any]) -> str:
        """What a worker is at, for reading. `sent`: indices by torch's number of the minibatch."""
        task, position, _ = self._row(worker)
        if task not in sent:
            return "no minibatch"
        index = sent[task]
        if type(index) is not list:
            return name_sample(self._dataset, index)
        if 0 <= position < len(index) and index[position] is not None:
            return name_sample(self._dataset, index[position])
        some = ", ".join(str(_plain(self._dataset, one)) for one in index[:8] if one is not None)
        if not some:
            return f"minibatch {task}"
        return f"the minibatch of samples {some}{', ...' if len(index) > 8 else ''}"

    def stack(self, worker: int, pid: int) -> str:
        """The stacks of the worker's threads now, or why there are none."""
        if not self._row(worker)[_ANSWERS]:
            return "  (it has not begun to work yet)"
        fd, begin = self._fds[worker], self._read[worker]
        try:
            os.kill(pid, STACK_SIGNAL)
        except ProcessLookupError:
            return "  (it is gone)"
        deadline, size = time.monotonic() + _STACK_WAIT_S, begin
        while time.monotonic() < deadline:
            time.sleep(0.02)
            now = os.fstat(fd).st_size
            if now == size > begin:
                break
            size = now
        self._read[worker] = size
        text = os.pread(fd, size - begin, begin).decode(errors="replace").rstrip()
        return text or f"  (none came: the process is {_state(pid)})"

    def stall(self, worker: int, pid: int, sent: dict[int, Any]) -> str:
        """Who is waited for, what it is at and where."""
        return (
            f"worker {worker} (pid {pid}) is at {self.at(worker, sent)}; its stack:\n"
            f"{self.stack(worker, pid)}"
        )

    def death(self, worker: int, pid: int, code: int, sent: dict[int, Any]) -> str:
        """Of a worker that ended: which, with what, and the likely cause."""
        at = f"worker {worker} (pid {pid}), at {self.at(worker, sent)},"
        if code >= 0:
            return f"{at} ended by itself with exit code {code}."
        with suppress(ValueError):
            at += f" was killed by {signal.Signals(-code).name}."
        if -code != signal.SIGKILL:
            return f"{at} Its own output says where."
        group, machine = (now - then for now, then in zip(oom_kills(), self._kills, strict=True))
        if group <= 0 and machine <= 0:
            return f"{at} The kernel counted no out-of-memory kill, so somebody sent the signal."
        where = "in this control group" if group > 0 else "on this machine"
        return (
            f"{at} Probably it was out of memory: the kernel's count of out-of-memory kills "
            f"{where} has risen by {max(group, machine)} since the workers were started. Fewer "
            "workers, a smaller prefetch_factor or smaller minibatches take less."
        )

    def _row(self, worker: int) -> tuple[int, int, int]:
        if worker >= len(self._fds):
            return -1, -1, 0
        row = np.frombuffer(os.pread(self._fds[worker], 24, 0), np.int64)
        return int(row[_TASK]), int(row[_POSITION]), int(row[_ANSWERS])


def name_sample(dataset: Any, index: Any) -> str:
    """`sample 7`, with its file where the data set knows one."""
    index = _plain(dataset, index)
    if isinstance(dataset, KeyedDataset):
        dataset = dataset.dataset
    path = _path(dataset, index)
    return f"sample {index}, {path}" if path else f"sample {index}"


def _plain(dataset: Any, index: Any) -> Any:
    """The user's index: keyed data sets are asked for (epoch, index)."""
    return index[1] if isinstance(dataset, KeyedDataset) else index


def _path(dataset: Any, index: Any) -> str:
    folder = getattr(dataset, "folder", None)  # our own views of one
    if not isinstance(folder, Folder):
        found = find_folder(dataset)
        folder = None if isinstance(found, str) else found
    try:
        if folder is not None:
            return folder.name(folder.positions([index])[1][0])
        first = dataset.samples[index][0]
    except Exception:  # whatever a data set of the user's does: there is no path then
        return ""
    return first if isinstance(first, str) else ""


def _state(pid: int) -> str:
    """In the kernel's words."""
    with suppress(OSError):
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("State:"):
                    return line.split(":", 1)[1].strip()
    return "gone"
