"""Parts of preparing a sample are timed in a worker's own data set, and change nothing."""

import time

import pytest
from torch.utils.data import ConcatDataset, Subset

from dsanalyzer.hooks.parts import Parts


class Folder:
    """As torchvision's data sets are."""

    def __init__(self, transform=None):
        self.transform = transform
        self.loader = len

    def __len__(self):
        return 4

    def __getitem__(self, index):
        sample = self.loader("x" * index)
        return self.transform(sample) if self.transform else sample


class Slow:
    level = 3

    def __call__(self, sample):
        time.sleep(0.002)
        return sample * 10


def test_each_part_is_timed_and_samples_are_what_they_were():
    dataset = Folder(Slow())
    parts = Parts(dataset)

    assert [dataset[index] for index in range(4)] == [0, 10, 20, 30]
    taken = parts.take()
    assert list(taken) == ["loader", "Slow"]
    wall_s, core_s = taken["Slow"]
    assert wall_s >= 4 * 0.002 > core_s  # it slept
    assert parts.take() == {}  # since the last call
    assert dataset.transform.level == 3  # in everything else it is what it wraps


@pytest.mark.parametrize(
    "around", [lambda one: Subset(one, [1, 2]), lambda one: ConcatDataset([one, Folder()])]
)
def test_data_sets_inside_others_are_found(around):
    outer = around(Folder(Slow()))
    parts = Parts(outer)

    assert outer[1] in (10, 20)
    assert set(parts.take()) == {"loader", "Slow"}


def test_each_transform_of_a_compose_is_timed_and_the_jobs_own_is_left_alone(
    torchvision,
):
    for kind in (torchvision.transforms.Compose, torchvision.transforms.v2.Compose):
        compose = kind([Slow(), kind([abs])])
        dataset = Folder(compose)
        parts = Parts(dataset)

        assert dataset[2] == 20
        assert set(parts.take()) == {"loader", "Slow", "abs"}
        assert type(compose.transforms[0]) is Slow


def test_what_shows_no_parts_is_left_as_it_is():
    for dataset in ([1, 2], object(), Subset([1, 2], [0]), Folder()):
        parts = Parts(dataset)
        assert parts.take() == {}


def test_a_transform_that_raises_raises_the_same():
    def broken(sample):
        raise ValueError("no such picture")

    dataset = Folder(broken)
    parts = Parts(dataset)
    with pytest.raises(ValueError, match="no such picture"):
        dataset[0]
    assert "broken" in parts.take()


class Both:
    """May be called, and is also iterated."""

    def __call__(self, sample):
        return sample

    def __iter__(self):
        return iter([self])


def test_what_a_data_set_may_also_iterate_and_odd_attributes_are_left_alone():
    dataset = Folder(Both())
    dataset.datasets = 5
    dataset.dataset = dataset  # round in a circle
    parts = Parts(dataset)

    assert dataset[3] == 3 and list(dataset.transform) == [dataset.transform]
    assert set(parts.take()) == {"loader"}


def test_a_data_set_that_is_there_twice_is_timed_once():
    one = Folder(Slow())
    outer = ConcatDataset([one, one])
    parts = Parts(outer)
    assert outer[1] == 10 and type(one.transform).__name__ == "Timed"
    wall_s, _ = parts.take()["Slow"]
    assert wall_s < 0.1 and type(one.transform._called) is Slow


def test_what_is_set_on_a_transform_is_set_on_the_datas_sets_own():
    slow = Slow()
    dataset = Folder(slow)
    Parts(dataset)
    dataset.transform.level = 7
    assert slow.level == 7
