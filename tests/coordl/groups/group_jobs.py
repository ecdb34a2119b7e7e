"""Jobs of a group, each a forked process: what they got, sample by sample, and how they ended."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import coordl
from coordl import transforms as T
from coordl.delivery.shared_order import KeyedOrder

PICTURES = 22
SEED = 7
Batches = list[tuple[bytes, list[int]]]  # of each minibatch: pictures, labels
_held: list[Any] = []  # in a job, what it keeps until it is let go


def hold(one: Any) -> Any:
    """In a job: keeps a loader, and with it its group, for the jobs that come after."""
    _held.append(one)
    return one


def transform(edge: int = 24) -> T.Compose:
    return T.Compose([T.RandomResizedCrop(edge), T.RandomHorizontalFlip(), T.ToTensor()])


def loader(folder: Path, batch: int, **more: Any) -> coordl.DataLoader:
    """One that shuffles, in group "sweep" of seed SEED, unless told otherwise."""
    chosen = {"group": "sweep", "seed": SEED, "shuffle": True, "num_workers": 2, **more}
    data = coordl.ImageFolder(folder, chosen.pop("transform", None) or transform())
    return coordl.DataLoader(data, batch, **chosen)


def batches_of(iterator: Any) -> Batches:
    return [(images.numpy().tobytes(), labels.tolist()) for images, labels in iterator]


def epochs_of(one: coordl.DataLoader, epochs: int) -> list[Batches]:
    return [batches_of(one) for _ in range(epochs)]


class ByKey(torch.utils.data.Sampler):
    """The order a group of that seed has in its epochs, written down anew."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __iter__(self) -> Iterator[int]:
        class Holder:
            batch_sampler = torch.utils.data.BatchSampler(
                torch.utils.data.RandomSampler(range(self.count)), 1, False
            )

        KeyedOrder().key(Holder, self.seed, self.epoch)
        return iter(Holder.batch_sampler.sampler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count


def alone(folder: Path, batch: int, epoch: int, seed: int = SEED, **more: Any) -> Batches:
    """What a loader outside any group gives in that epoch of that order."""
    sampler = ByKey(PICTURES, seed)
    sampler.set_epoch(epoch)
    one = loader(folder, batch, group=None, seed=seed, shuffle=None, sampler=sampler, **more)
    return batches_of(one)


class Job:
    """A process that runs `work` and stays, with what it holds, until it is let go."""

    def __init__(self, work: Callable[[], Any]) -> None:
        result_read, result = os.pipe()
        stay, self._let_go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._let_go)
            os.close(result_read)
            code = 1
            try:
                with open(result, "wb") as file:
                    pickle.dump(work(), file)
                code = 0
                os.read(stay, 1)
                _held.clear()
                gc.collect()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(result)
        os.close(stay)
        self._result = open(result_read, "rb")  # noqa: SIM115 - closed by end()

    def result(self) -> Any:
        """What `work` returned; the process goes on."""
        return pickle.load(self._result)

    def has_result(self) -> bool:
        """Whether result() would not wait; true also of a job that ended without one."""
        return bool(select.select([self._result], [], [], 0)[0])

    def end(self) -> int:
        """Lets it go; its exit status, or minus the signal that ended it."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._let_go, b"x")  # not closed: jobs forked later have that end too
        os.close(self._let_go)
        self._result.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait_stopped(self) -> None:
        assert os.WIFSTOPPED(os.waitpid(self.pid, os.WUNTRACED)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def prepared(stats: dict[str, Any]) -> int:
    """Samples a job's native threads made, for whomever."""
    return sum(epoch["shared"]["prepared"] + epoch["shared"]["alone"] for epoch in stats["epochs"])
