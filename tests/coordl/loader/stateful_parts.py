"""Data sets and samplers that keep a state of their own, as torchdata's protocol has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.data
from torch.utils.data import get_worker_info


def part_of_worker(sizes: list[int]) -> range:
    """Numbers of this worker: sizes[0] for the first, and so on; all without workers."""
    info = get_worker_info()
    if info is None:
        return range(sum(sizes))
    start = sum(sizes[: info.id])
    return range(start, start + sizes[info.id])


class StatefulIterator:
    """Its numbers in order, or drawn from them with torch's global generator."""

    def __init__(self, numbers: range, draws: bool) -> None:
        self.numbers, self.draws, self.i = numbers, draws, 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.i >= len(self.numbers):
            raise StopIteration
        at = int(torch.randint(len(self.numbers), ())) if self.draws else self.i
        self.i += 1
        return self.numbers[at]

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"nested": {"i": self.i}}
        if self.draws:
            state["nested"]["generator"] = torch.get_rng_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.i = state["nested"]["i"]
        if self.draws:
            torch.set_rng_state(state["nested"]["generator"])


class OfStatefulIterators(torch.utils.data.IterableDataset):
    """The data set has no state, its iterators have."""

    def __init__(self, sizes: list[int], draws: bool = True) -> None:
        self.sizes, self.draws = sizes, draws

    def __iter__(self) -> Any:
        return StatefulIterator(part_of_worker(self.sizes), self.draws)


class ItsOwnIterator(torch.utils.data.IterableDataset, StatefulIterator):  # type: ignore[misc]
    """Every worker has all of it."""

    def __init__(self, size: int, draws: bool = True) -> None:
        StatefulIterator.__init__(self, range(size), draws)

    def __iter__(self) -> Any:
        return self


class Generating(torch.utils.data.IterableDataset):
    """The data set has a state, its iterators, generators, have none. Counts its epochs."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.i, self.epoch = sizes, 0, 0
        self.resume: int | None = None

    def __iter__(self) -> Any:
        numbers = part_of_worker(self.sizes)
        self.i, self.resume = self.resume or 0, None
        for number in numbers[self.i :]:
            self.i += 1
            yield number, self.epoch
        self.i = 0
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        return {"i": self.i, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.resume, self.epoch = state["i"], state["epoch"]


class WithoutState(torch.utils.data.IterableDataset):
    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def __iter__(self) -> Any:
        yield from part_of_worker(self.sizes)


class Drawing(torch.utils.data.Dataset):
    """With an index, and a state: torch's global generator, which its samples draw from."""

    def __init__(self, size: int, draws: bool = True) -> None:
        self.size, self.draws = size, draws

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        drawn = int(torch.randint(1 << 40, ())) if self.draws else 0
        return {"index": index, "name": f"n{index}", "drawn": drawn}

    def state_dict(self) -> dict[str, Any]:
        return {"generator": torch.get_rng_state()} if self.draws else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.draws:
            torch.set_rng_state(state["generator"])


class CountingSampler(torch.utils.data.Sampler):
    """Its iterators have a state."""

    class Places:
        def __init__(self, size: int) -> None:
            self.size, self.i = size, 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> int:
            if self.i >= self.size:
                raise StopIteration
            self.i += 1
            return self.i - 1

        def state_dict(self) -> dict[str, int]:
            return {"i": self.i}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.i = state["i"]

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Any:
        return CountingSampler.Places(self.size)

    def __len__(self) -> int:
        return self.size


class YieldedSampler(torch.utils.data.Sampler):
    """It has a state itself: how many it yielded, also when that was all."""

    def __init__(self, size: int) -> None:
        self.size, self.yielded = size, 0
        self.resume: int | None = None

    def __iter__(self) -> Any:
        self.yielded, self.resume = self.resume or 0, None
        generator = torch.Generator().manual_seed(5)
        for index in torch.randperm(self.size, generator=generator).tolist()[self.yielded :]:
            self.yielded += 1
            yield index

    def __len__(self) -> int:
        return self.size

    def state_dict(self) -> dict[str, int]:
        return {"yielded": self.yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.resume = state["yielded"]


class EpochSampler(torch.utils.data.Sampler):
    """It has a state itself, and after its last index that of the next epoch's begin."""

    def __init__(self, size: int) -> None:
        self.size, self.i, self.epochs = size, 0, 0

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.epochs)
        for index in torch.randperm(self.size, generator=generator).tolist()[self.i :]:
            self.i += 1
            yield index
        self.i, self.epochs = 0, self.epochs + 1

    def __len__(self) -> int:
        return self.size

    def state_dict(self) -> dict[str, int]:
        return {"i": self.i, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.i, self.epochs = state["i"], state["epochs"]


class Switching(torch.utils.data.IterableDataset):
    """Its state is a dict it changes in place."""

    def __init__(self) -> None:
        self.state = dict.fromkeys(range(4), 0)
        self.step, self.limit = 0, 100

    def __iter__(self) -> Any:
        for _ in range(self.step, self.limit):
            self.step += 1
            place = self.step % 4
            self.state[place] = 1 - self.state[place]
            yield self.state[place]

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state, self.step = state["state"], state["step"]


def identity(samples: Any) -> Any:
    return samples
