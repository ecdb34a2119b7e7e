"""Encoded minibatches for DALI; pipelines of the real one on the CPU, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import coordl
from coordl import ItemError, StateError
from coordl import transforms as T
from coordl.integrations.dali import Encoded

COUNT = 22


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    root = tmp_path / "pictures"
    for number in range(COUNT):
        home = root / f"class{number % 3}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos[number % len(photos)], home / f"{number:03}.jpg")
    return root


def loader(folder: Path, **options: Any) -> coordl.DataLoader:
    crop = T.Compose([T.RandomResizedCrop(32), T.ToTensor()])
    return coordl.DataLoader(coordl.ImageFolder(folder, crop), **{"batch_size": 4, **options})


def files(minibatches: Any) -> list[tuple[list[bytes], list[int]]]:
    return [
        ([file.tobytes() for file in encoded], [int(label) for label in labels])
        for encoded, labels in minibatches
    ]


def by_hand(data: Any, order: Any) -> list[tuple[list[bytes], list[int]]]:
    chosen = [[data.samples[i] for i in part] for part in order]
    return [([Path(p).read_bytes() for p, _ in part], [t for _, t in part]) for part in chosen]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [None, "100%"])
def test_samples_and_order_are_those_of_the_loader(
    folder: Path, workers: int, cache: str | None
) -> None:
    def order(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    options: dict[str, Any] = {"shuffle": True, "num_workers": workers, "cache": cache}
    ours = Encoded(loader(folder, generator=order(3), **options))
    plain = loader(folder, shuffle=True, generator=order(3))
    for _ in range(2):
        iterator = iter(plain)  # draws what each pass does
        assert files(ours) == by_hand(plain.dataset, iterator._sampler_iter)
    assert len(ours) == 6
    if cache and not workers:
        assert [epoch["hits"] for epoch in ours.loader.stats()["epochs"]] == [0, COUNT]


def test_subsets_batch_samplers_and_targets_of_ones_own(folder: Path) -> None:
    data = coordl.ImageFolder(folder, None, lambda label: (label, [0.5 * label] * label))
    part = torch.utils.data.Subset(data, [5, 4, 21, -1])
    batches = [[0, 3], [2], [1, 0, 1]]
    ours = Encoded(coordl.DataLoader(part, batch_sampler=batches))
    found = list(ours)
    assert [len(encoded) for encoded, _, _ in found] == [2, 1, 3]
    assert found[0][0][1].tobytes() == Path(data.samples[21][0]).read_bytes()
    labels = [data.samples[i][1] for i in (4, 5, 4)]
    assert [int(label) for label in found[2][1]] == labels
    assert [weights.tolist() for weights in found[2][2]] == [[0.5 * n] * n for n in labels]


def test_set_epoch_and_ranks_reach_the_sampler(folder: Path) -> None:
    from torch.utils.data.distributed import DistributedSampler

    plain = loader(folder)
    sampler = DistributedSampler(plain.dataset, 2, 1, seed=4)
    ours = Encoded(coordl.DataLoader(plain.dataset, 4, sampler=sampler))
    sampler.set_epoch(3)
    rows = list(sampler)
    assert files(ours) == by_hand(plain.dataset, [rows[:4], rows[4:8], rows[8:]])


def test_items_another_loader_packed_come_back_as_files(folder: Path) -> None:
    packed = loader(folder, cache="200%", cache_form="packed", num_workers=1)
    list(packed)
    assert packed.stats()["cache_forms"]["packed"] == COUNT
    ours = Encoded(loader(folder, cache="200%"))
    for (encoded, _), (whole, _) in zip(
        ours, by_hand(packed.dataset, np.arange(COUNT)[:20].reshape(5, 4)), strict=False
    ):
        for ours_, theirs in zip(encoded, whole, strict=True):
            assert decoded(ours_.tobytes()) == decoded(theirs)
    assert ours.loader.stats()["total"]["hits"] == COUNT


def decoded(data: bytes) -> bytes:
    import io

    with Image.open(io.BytesIO(data)) as picture:
        return picture.convert("RGB").tobytes()


def test_a_packed_data_set_gives_jpegs(folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from coordl.cli import app

    done = CliRunner().invoke(app, ["pack", str(folder), str(tmp_path / "packed")])
    assert done.exit_code == 0
    data = coordl.PackedFolder(tmp_path / "packed")
    (encoded, labels), *_ = Encoded(coordl.DataLoader(data, 4))
    assert [int(label) for label in labels] == data.targets[:4]
    assert decoded(encoded[2].tobytes()) == data[2][0].tobytes()


def test_remote_folders_and_others_work_alike(folder: Path) -> None:
    local = coordl.ImageFolder(folder)
    ours = Encoded(coordl.DataLoader(coordl.ImageFolder(f"file://{folder}"), 4, num_workers=1))
    assert files(ours) == by_hand(local, [range(i, min(i + 4, COUNT)) for i in range(0, COUNT, 4)])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_goes_on_after_what_was_taken(folder: Path, workers: int) -> None:
    def made() -> Encoded:
        return Encoded(loader(folder, shuffle=True, num_workers=workers,
                              generator=torch.Generator().manual_seed(1)))  # fmt: skip

    whole = files(made())
    first = made()
    given = iter(first)
    for _ in range(4):
        next(given)
    for taken in (0, 2, 4):
        other = made()
        other.load_state_dict(first.state_dict(taken))
        assert files(other) == whole[taken:]
    other = made()
    other.load_state_dict(first.state_dict())
    assert files(other) == whole[4:]
    with pytest.raises(StateError, match=r"taken=5: of this pass's 4 minibatches"):
        first.state_dict(5)
    del given


def test_bad_files_are_on_errors(folder: Path) -> None:
    Path(coordl.ImageFolder(folder).samples[1][0]).unlink()
    with pytest.raises(ItemError, match="sample 1: cannot read"):
        list(Encoded(coordl.DataLoader(_listed(folder), 4)))
    skipped = Encoded(coordl.DataLoader(_listed(folder), 4, on_error="skip"))
    assert len(next(iter(skipped))[0]) == 3


def _listed(folder: Path) -> coordl.ImageList:
    names = [folder / f"class{number % 3}" / f"{number:03}.jpg" for number in range(COUNT)]
    return coordl.ImageList(sorted((name, 0) for name in names))


def test_what_cannot_be_handed_on_is_refused(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"coordl\.DataLoader is needed, got DataLoader"):
        Encoded(torch.utils.data.DataLoader([1]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no encoded items to hand on: the data set is a"):
        Encoded(coordl.DataLoader([1]))
    with pytest.raises(ValueError, match="batch_size=None"):
        Encoded(loader(folder, batch_size=None))
    with pytest.raises(ValueError, match=r'JPEGs packed.*form="original"'):
        Encoded(loader(folder, cache=coordl.MinIOCache("1MiB", form="packed")))
    data = coordl.ImageFolder(folder, None, lambda label: f"class {label}")
    with pytest.raises(TypeError, match="a target is a str"):
        next(iter(Encoded(coordl.DataLoader(data, 4))))


def test_dali_is_imported_only_for_a_pipeline() -> None:
    code = "import coordl.integrations.dali, sys; print('nvidia' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# -- the real one --------------------------------------------------------------------------------


def pipeline(source: Encoded, depth: int) -> Any:
    pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=4, num_threads=1, device_id=None, prefetch_queue_depth=depth)
    def defined() -> Any:
        encoded, labels = source.inputs()
        return fn.decoders.image(encoded, adjust_orientation=False), labels

    made = defined()
    made.build()
    return made


def ran(made: Any, count: int | None = None) -> list[tuple[list[np.ndarray], list[int]]]:
    """The minibatches of a pass, or the next `count` of it."""
    found: list[tuple[list[np.ndarray], list[int]]] = []
    while count is None or len(found) < count:
        try:
            pictures, labels = made.run()
        except StopIteration:
            made.reset()
            break
        pictures = [np.array(pictures.at(i)) for i in range(len(pictures))]
        found.append((pictures, [int(labels.at(i)) for i in range(len(labels))]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_pipeline_decodes_what_the_loader_reads_in_its_order(
    folder: Path, workers: int, depth: int
) -> None:
    def order() -> torch.Generator:
        return torch.Generator().manual_seed(7)

    options: dict[str, Any] = {"num_workers": workers, "cache": "100%", "shuffle": True}
    made = pipeline(Encoded(loader(folder, generator=order(), **options)), depth)
    plain = loader(folder, generator=order(), shuffle=True)
    for _ in range(2):
        found = ran(made)
        expected = by_hand(plain.dataset, iter(plain)._sampler_iter)
        assert [labels for _, labels in found] == [labels for _, labels in expected]
        for (pictures, _), (whole, _) in zip(found, expected, strict=True):
            for picture, data in zip(pictures, whole, strict=True):
                theirs = np.frombuffer(decoded(data), np.uint8).reshape(picture.shape)
                # DALI has a libjpeg of its own: its chroma may differ by some levels.
                assert np.abs(picture.astype(int) - theirs).mean() < 1


@pytest.mark.slow
def test_a_pipeline_that_reads_ahead_is_resumed_after_what_came_out(folder: Path) -> None:
    def made() -> Encoded:
        return Encoded(loader(folder, shuffle=True, generator=torch.Generator().manual_seed(1)))

    labels = [labels for _, labels in ran(pipeline(made(), 3))]
    first = made()
    taken = ran(pipeline(first, 3), 2)
    assert [row for _, row in taken] == labels[:2]
    other = made()
    other.load_state_dict(first.state_dict(taken=2))
    assert [row for _, row in ran(pipeline(other, 3))] == labels[2:]
