"""Data sets and collate functions of the staging tests, importable in spawned workers."""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.utils.data

Pair = collections.namedtuple("Pair", ["image", "label"])
SAMPLES = 22
LARGE = (3, 40, 40)  # a minibatch of 4 of these in float32 is beyond what goes inline


def large(index: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = int(np.prod(LARGE))
    return (torch.arange(count).reshape(LARGE) * (index + 1) % 251).to(dtype)


class Box:
    """A class of the user's with a tensor inside."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Sub(torch.Tensor):
    """A tensor of a class of its own."""


def sample(kind: str, i: int) -> Any:
    """Sample `i` of a structure that default_collate takes."""
    image = large(i)
    if kind == "tensor":
        return image
    if kind == "tuple":
        return image, i
    if kind == "list":
        return [image, float(i), str(i)]
    if kind == "dict":
        return {"image": image, "name": f"n{i}", "nested": {"y": i, "z": (image[0], i / 3)}}
    if kind == "named tuple":
        return Pair(image, torch.tensor(i))
    if kind == "numpy":
        return image.numpy(), np.float32(i), np.int16(i), np.bool_(i % 2)
    if kind == "bytes":
        return b"%d" % i, image
    if kind == "ordered dict":
        return collections.OrderedDict(a=image, b=i)
    if kind == "permuted":
        return image.permute(2, 0, 1), image.permute(1, 2, 0)[::2]
    if kind == "empty":
        return torch.empty(0, 3), image
    if kind == "scalars":
        return torch.tensor(i), torch.tensor(i % 2 == 0), image
    if kind == "subclass":
        return image.as_subclass(Sub), i
    if kind == "mixed types":
        return (image if i % 4 else image.double()), i
    if kind.startswith("dtype "):
        return large(i, getattr(torch, kind.split()[1]))
    raise ValueError(kind)


STRUCTURES = [
    "tensor",
    "tuple",
    "list",
    "dict",
    "named tuple",
    "numpy",
    "bytes",
    "ordered dict",
    "permuted",
    "empty",
    "scalars",
    "subclass",
    "mixed types",
    *(
        f"dtype {name}"
        for name in (
            *("uint8", "int64", "float16", "bfloat16", "float64", "bool", "complex64"),
            "float8_e4m3fn",
        )
    ),
]


class Structures(torch.utils.data.Dataset):
    """Samples of one structure."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        return sample(self.kind, index)


class Many(Structures):
    """The same, asked for whole minibatches."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        assert type(indices) is list
        return [self[index] for index in indices]


class Stream(torch.utils.data.IterableDataset):
    """Each worker has samples of its own, the later ones fewer."""

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        worker, count = (0, 1) if info is None else (info.id, info.num_workers)
        for i in range(worker, SAMPLES - 6 * worker, count):
            yield large(i), i


class Growing(torch.utils.data.Dataset):
    """Samples (batch_size=None) of many sizes, some small, some empty."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        size = (10, 0, 5_000, 40_000, 300_000, 7)[index % 6]
        return torch.full((size,), float(index))


class Failing(Structures):
    """Sample 9 raises."""

    def __getitem__(self, index: int) -> Any:
        if index == 9:
            raise ValueError(f"sample {index} is bad")
        return super().__getitem__(index)


class Deadly(Structures):
    """A worker kills itself at sample 13, at a named step."""

    def __init__(self, step: str, file: str = "") -> None:
        super().__init__("tuple")
        self.step, self.file = step, file

    def __getitem__(self, index: int) -> Any:
        if index == 13 and self.step == "read":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class DeadlyPickle:
    """Kills the worker while its minibatch is packed."""

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Hanging(Structures):
    """Sample 6 waits until a file exists."""

    def __init__(self, until: str) -> None:
        super().__init__("tuple")
        self.until = until

    def __getitem__(self, index: int) -> Any:
        while index == 6 and not os.path.exists(self.until):
            time.sleep(0.01)
        return super().__getitem__(index)


def list_of_samples(samples: list[Any]) -> list[Any]:
    return samples


def boxed(samples: list[Any]) -> Box:
    return Box(torch.utils.data.default_collate(samples)[0])


def with_views(samples: list[Any]) -> Any:
    """Two tensors over one storage, twice the same tensor, and a small view of a large one."""
    images = torch.utils.data.default_collate(samples)[0]
    return images, images[1:], images, images[0, 0, 0, :3]


def sparse(samples: list[Any]) -> Any:
    images = torch.stack([image for image, _ in samples])
    return images.to_sparse(), images.permute(0, 2, 3, 1), images


def with_numpy(samples: list[Any]) -> Any:
    return {"a": np.stack([image.numpy() for image, _ in samples]), "n": len(samples)}


class Remembering:
    """Gives what it collated last as well: it keeps what it returned."""

    def __init__(self) -> None:
        self.last: Any = None

    def __call__(self, samples: list[Any]) -> Any:
        now = torch.utils.data.default_collate(samples)[0]
        last, self.last = self.last, now
        return now, now.clone() if last is None else last


def kill_while_collating(samples: list[Any]) -> Any:
    if any(label == 13 for _, label in samples):
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.utils.data.default_collate(samples)


def kill_while_packing(samples: list[Any]) -> Any:
    batch = torch.utils.data.default_collate(samples)
    return [*batch, DeadlyPickle()] if any(label == 13 for _, label in samples) else batch


def not_to_be_pickled(samples: list[Any]) -> Any:
    return (lambda: samples) if samples[0][1] == 8 else torch.utils.data.default_collate(samples)
