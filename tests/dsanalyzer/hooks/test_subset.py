"""How many samples a minibatch has, and what an epoch is, of loaders of every make."""

from collections import UserDict

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SubsetRandomSampler, TensorDataset

from dsanalyzer.hooks import subset

IMAGE = torch.zeros(3, 4, 4)
IMAGES = torch.zeros(8, 3, 4, 4)


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES,
        [IMAGES, torch.zeros(8)],
        {"image": IMAGES, "label": torch.zeros(8)},
        UserDict(input_ids=torch.zeros(8, 16), mask=torch.zeros(8, 16)),
        (tuple([IMAGE] * 8), tuple([{"boxes": torch.zeros(2, 4)}] * 8)),
        [{"image": IMAGE}] * 8,
        [[IMAGES, IMAGES], torch.zeros(8)],
        {"text": ["a"] * 8, "id": list(range(8))},
        list(range(8)),
        [(IMAGE, 0)] * 8,
        [[1, 2, 3]] * 8,
        [{"image": IMAGES}, {"label": torch.zeros(8)}],
        [[IMAGES, IMAGES], [IMAGES, IMAGES]],
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_samples_of_a_minibatch(batch):
    assert subset.samples_in(batch) == 8


def test_tensors_are_changed_wherever_they_are():
    encoding = UserDict(ids=torch.zeros(2), inner={"mask": torch.zeros(2)}, text="as it is")

    changed = subset.map_tensors(lambda t: t + 1, encoding)

    assert type(changed) is UserDict and changed["text"] == "as it is"
    assert changed["ids"].tolist() == changed["inner"]["mask"].tolist() == [1, 1]
    assert encoding["ids"].tolist() == [0, 0]


class Share:
    """Every so many-th minibatch, of a sampler that draws all, as Accelerate's with a seed."""

    def __init__(self, batches, ranks):
        self.batches, self.ranks = batches, ranks
        self.batch_size, self.sampler = batches.batch_size, batches.sampler

    def __len__(self):
        return -(-len(self.batches) // self.ranks)

    def __iter__(self):
        return iter(list(self.batches)[:: self.ranks])


class Around:
    """What it calls its sampler is a batch sampler, as timm's."""

    def __init__(self, batches):
        self.sampler = batches

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        return iter(self.sampler)


class Every:
    """A sampler of single indices that has another, as wrappers for ranks do."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __len__(self):
        return len(self.sampler) // 2

    def __iter__(self):
        return iter(list(self.sampler)[::2])


def loader(**options):
    return DataLoader(TensorDataset(torch.arange(10)), **options)


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        ({"batch_size": 4}, 10),
        ({"batch_size": 4, "sampler": SubsetRandomSampler(range(6))}, 6),
        ({"batch_sampler": [[0, 1, 2], [3, 4]]}, 5),
        ({"batch_sampler": BatchSampler(range(10), 4, drop_last=True)}, 10),
        ({"batch_sampler": Share(BatchSampler(range(10), 2, False), 2)}, 6),
        ({"batch_sampler": Around(BatchSampler(range(10), 4, False))}, 10),
        ({"batch_size": None}, 10),
        ({"batch_size": 1, "sampler": Every(range(10))}, 5),
    ],
)
def test_samples_of_an_epoch(options, samples):
    assert subset.describe(loader(**options))["dataset_samples"] == samples


@pytest.mark.parametrize(
    ("drawn", "ranks", "samples"),
    [(4, 3, 10), (3, 3, 10), (10, 2, 20), (2, 3, 6)],  # filled up, cut, not shared, a part
)
def test_samples_of_an_epoch_of_ranks(drawn, ranks, samples):
    part = loader(batch_size=1, sampler=SubsetRandomSampler(range(drawn)))

    assert subset.describe(part, ranks)["dataset_samples"] == samples


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ({"batch_size": 2, "sampler": Every(range(10))}, [0, 2, 4, 6]),
        ({"batch_sampler": Share(BatchSampler(range(10), 2, False), 2)}, [0, 1, 4, 5, 8, 9]),
    ],
)
def test_a_ranks_share_is_chosen_from(monkeypatch, options, drawn):
    monkeypatch.setattr(subset, "_files", lambda _, indices, alive: [[__file__]] * len(indices))
    monkeypatch.setattr(subset, "_check_files_are_whole", lambda *_: None)

    assert subset.choose(loader(**options), 2, 100)["indices"] == drawn


def test_a_sampler_without_end_is_drawn_from_once_over(monkeypatch):
    class Endless:
        def __iter__(self):
            while True:
                yield from range(10)

    monkeypatch.setattr(subset, "_files", lambda _, indices, alive: [[__file__]] * len(indices))
    monkeypatch.setattr(subset, "_check_files_are_whole", lambda *_: None)
    endless = loader(batch_size=2, sampler=Endless())

    assert sorted(subset.choose(endless, 2, 100)["indices"]) == list(range(10))
