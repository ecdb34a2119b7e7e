"""coordl.DataLoader on an image folder: torch's order, the reference's pixels, seeded bits."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from PIL import Image
from recipe import STD, train_transform

import coordl
from coordl import transforms as T
from coordl.prep.plan import Plan, compile_plan
from coordl.prep.vision import prepare_image


class Numbers(torch.utils.data.Dataset):
    """The order torch's own loader takes the samples in."""

    def __init__(self, folder: coordl.ImageFolder) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, self.folder.samples[index][1]


def same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def test_constructor_takes_torchs_arguments_in_torchs_order() -> None:
    theirs = inspect.signature(torch.utils.data.DataLoader.__init__).parameters
    ours = inspect.signature(coordl.DataLoader.__init__).parameters
    shared = [(p.name, p.kind, p.default) for p in ours.values() if p.name in theirs]
    assert shared == [(p.name, p.kind, p.default) for p in theirs.values()]
    extra = {p.name: p.kind for p in ours.values() if p.name not in theirs}
    assert set(extra) == {
        "cache", "cache_form", "cache_opens", "seed", "prep", "memory_format", "on_error",
        "snapshot_every_n_steps", "group", "staging", "verify", "peers",
    }  # fmt: skip
    assert set(extra.values()) == {inspect.Parameter.KEYWORD_ONLY}


def test_it_is_torchs_loader_and_stays_generic() -> None:
    assert issubclass(coordl.DataLoader, torch.utils.data.DataLoader)
    assert coordl.DataLoader[torch.Tensor] is not None


def test_extras_are_attributes_a_framework_can_rebuild_from(folder: Path) -> None:
    loader = coordl.DataLoader(
        coordl.ImageFolder(folder, train_transform()), 4, cache=None, seed=3, prep="native"
    )
    names = inspect.signature(coordl.DataLoader.__init__).parameters.keys() - {
        "self", "shuffle", "batch_sampler",
    }  # fmt: skip
    again = coordl.DataLoader(**{name: getattr(loader, name) for name in names})
    assert (again.cache, again.seed, again.prep) == (None, 3, "native")
    assert same(list(again), list(loader))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_order_and_labels_are_torchs_for_the_same_generator(
    folder: Path, workers: int, drop_last: bool
) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    options: dict[str, Any] = {"shuffle": True, "drop_last": drop_last, "num_workers": workers}
    theirs = torch.utils.data.DataLoader(
        Numbers(data), 4, generator=torch.Generator().manual_seed(7), **options
    )
    ours = coordl.DataLoader(data, 4, generator=torch.Generator().manual_seed(7), **options)
    assert len(ours) == len(theirs)
    for _ in range(2):  # a second epoch draws on from the generator, as torch's does
        expected = list(theirs)
        got = list(ours)
        assert [labels.tolist() for _, labels in got] == [b.tolist() for _, b in expected]
        assert all(isinstance(batch, list) and batch[1].dtype == torch.int64 for batch in got)


def test_global_draws_are_consumed_as_torch_does(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    after = []
    for loader in (
        torch.utils.data.DataLoader(Numbers(data), 4, shuffle=True),
        coordl.DataLoader(data, 4, shuffle=True, seed=1),
    ):
        torch.manual_seed(11)
        list(loader)
        after.append(torch.rand(4))
    assert torch.equal(*after)


def test_images_are_within_one_level_of_the_reference(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 5, seed=9, prep="native")
    images = torch.cat([batch[0] for batch in loader])
    assert images.shape == (22, 3, 48, 48) and images.dtype == torch.float32
    plan = compile_plan(data.transform)
    assert isinstance(plan, Plan)
    level = (1 / 255 / np.asarray(STD, np.float32))[:, None, None]
    for index, (path, _) in enumerate(data.samples):
        with Image.open(path) as picture:
            expected = prepare_image(picture, plan, 9, 0, index)
        assert (np.abs(images[index].numpy() - expected) <= level * 1.01).all()


def test_without_normalise_and_float_the_pixels_are_levels(folder: Path) -> None:
    data = coordl.ImageFolder(
        folder, T.Compose([T.Resize(64), T.CenterCrop((40, 56)), T.ToTensor()])
    )
    images, _ = next(iter(coordl.DataLoader(data, 4, prep="native")))
    assert images.shape == (4, 3, 40, 56)
    levels = images * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_seed_gives_the_same_batches_with_any_number_of_workers(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    runs = []
    for workers in (0, 1, 2, 4):
        loader = coordl.DataLoader(data, 4, num_workers=workers, seed=5, prep="native")
        runs.append([list(loader), list(loader)])
    assert not same(runs[0][0], runs[0][1])  # epochs differ
    for run in runs[1:]:
        assert same(run[0], runs[0][0]) and same(run[1], runs[0][1])


def test_without_seed_epochs_differ_and_manual_seed_repeats_them(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 4)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append([list(loader), list(loader)])
    assert not same(runs[0][0], runs[0][1])
    assert same(runs[0][0], runs[1][0]) and same(runs[0][1], runs[1][1])


def test_persistent_workers_draw_anew_each_epoch(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    for seed in (None, 4):
        loader = coordl.DataLoader(data, 4, num_workers=1, persistent_workers=True, seed=seed)
        assert not same(list(loader), list(loader))


def test_a_samplers_epoch_keys_the_draws(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())

    def epoch(loader: coordl.DataLoader, number: int) -> list[Any]:
        loader.sampler.set_epoch(number)  # type: ignore[union-attr]
        return list(loader)

    def fresh() -> coordl.DataLoader:
        sampler = torch.utils.data.DistributedSampler(data, num_replicas=2, rank=1, seed=6)
        return coordl.DataLoader(data, 4, sampler=sampler, seed=5)

    loader = fresh()
    first, second = epoch(loader, 0), epoch(loader, 1)
    assert not same(first, second)
    assert same(epoch(fresh(), 1), second)  # a restarted job is where it was


def test_an_iterator_that_yields_nothing_is_no_epoch(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 4, seed=5)
    iter(loader)
    assert same(list(loader), list(coordl.DataLoader(data, 4, seed=5)))


def test_two_iterators_of_one_loader_work_at_once(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    loader = coordl.DataLoader(data, 4, num_workers=2, seed=5)
    pairs = list(zip(loader, loader, strict=True))
    assert same([a for a, _ in pairs], [b for _, b in pairs])


def test_a_subset_of_a_subset_takes_the_right_pictures(folder: Path) -> None:
    data = coordl.ImageFolder(folder, T.Compose([T.Resize((32, 32)), T.ToTensor()]))
    subset = torch.utils.data.Subset(torch.utils.data.Subset(data, range(20, 0, -2)), [3, 1, -1])
    images, labels = next(iter(coordl.DataLoader(subset, 3, prep="native")))
    whole, all_labels = next(iter(coordl.DataLoader(data, 22, prep="native")))
    assert torch.equal(images, whole[[14, 18, 2]])
    assert torch.equal(labels, all_labels[[14, 18, 2]])


def test_target_transform_runs_in_python(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform(), target_transform=lambda t: t / 2)
    _, labels = next(iter(coordl.DataLoader(data, 22, prep="native")))
    assert labels.tolist() == [target / 2 for target in data.targets]


def test_a_batch_sampler_of_ones_own_decides_the_batches(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    batches = [[0, 21], [5], [7, 7, 8]]
    got = list(coordl.DataLoader(data, batch_sampler=batches, prep="native", seed=2))
    assert [len(images) for images, _ in got] == [2, 1, 3]
    assert torch.equal(got[2][0][0], got[2][0][1])  # the same key, the same bits


def test_any_index_a_list_takes_is_taken(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    asked = [[np.int32(3), -1], torch.tensor([4, 5]), (True, 2), range(6, 8)]
    batches = iter(coordl.DataLoader(data, batch_sampler=asked, prep="native"))  # type: ignore[arg-type]
    expected = [[3, 21], [4, 5], [1, 2], [6, 7]]
    for indices in expected:
        assert next(batches)[1].tolist() == [data.targets[i] for i in indices]
    with pytest.raises(TypeError):
        next(iter(coordl.DataLoader(data, batch_sampler=[[1.5]], prep="native")))  # type: ignore[list-item]


def test_an_index_beyond_the_data_set_is_raised_at_its_place(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    batches = iter(coordl.DataLoader(data, batch_sampler=[[0], [22], [1]], num_workers=1))
    next(batches)
    with pytest.raises(IndexError, match="sample 22 of 22"):
        next(batches)
    assert next(batches)[1].tolist() == [0]


@pytest.mark.parametrize(
    ("argument", "error"),
    [({"prep": "fast"}, ValueError), ({"seed": 1.5}, TypeError), ({"seed": True}, TypeError),
     ({"cache": "lots"}, ValueError), ({"num_workers": -1}, ValueError)],
)  # fmt: skip
def test_bad_arguments_are_refused(folder: Path, argument: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        coordl.DataLoader(coordl.ImageFolder(folder, train_transform()), 4, **argument)


def test_pin_memory_warns_without_an_accelerator(folder: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("an accelerator is there")
    data = coordl.ImageFolder(folder, train_transform())
    with pytest.warns(UserWarning, match="no accelerator"):
        next(iter(coordl.DataLoader(data, 4, pin_memory=True, prep="native")))


def test_the_plan_says_what_runs_where(folder: Path) -> None:
    data = coordl.ImageFolder(folder, train_transform())
    text = coordl.DataLoader(data, 4).plan()
    assert "native pass" in text and "RandomResizedCrop" in text
    text = coordl.DataLoader(data, 4, collate_fn=list).plan()
    assert "Python" in text and "collate_fn is not torch's default" in text
