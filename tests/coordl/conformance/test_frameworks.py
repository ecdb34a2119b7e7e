"""Frameworks that rebuild loaders, the real ones: skipped where they are not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
import torch.utils.data
from conformance_data import Engine, indices, same
from torch.utils.data.distributed import DistributedSampler

import coordl
from coordl import transforms as T

pytestmark = pytest.mark.area("Accelerate, Trainer, Lightning, timm, Ultralytics")


@pytest.fixture
def lightning(request: pytest.FixtureRequest) -> Any:
    if importlib.util.find_spec("torchvision"):  # torchmetrics imports it where it is
        request.getfixturevalue("torchvision")
    return pytest.importorskip("lightning", reason="lightning is not installed")


def prepared(loader: Any, **options: Any) -> Any:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    return accelerate.Accelerator(cpu=True, **options).prepare(loader)


def test_accelerate_keeps_class_extras_and_order(engine: Engine) -> None:
    loader = engine.ours(batch_size=5, seed=3)
    ready = prepared(loader)
    base = ready.base_dataloader
    assert type(base) is coordl.DataLoader and base.seed == 3
    assert base.plan().splitlines()[2:] == loader.plan().splitlines()[2:]
    assert indices(ready) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert isinstance(ready, torch.utils.data.DataLoader)


def test_accelerate_shuffles_ours_as_it_shuffles_torchs(engine: Engine) -> None:
    seen = []
    for make in (engine.stock, engine.ours):
        torch.manual_seed(4)
        ready = prepared(make(batch_size=5, shuffle=True))
        seen.append([indices(ready), indices(ready)])
    assert seen[0] == seen[1]


def test_a_loader_resumed_by_skipping_stays_ours(engine: Engine) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    ready = prepared(engine.ours(batch_size=5, seed=3))
    rest = accelerate.skip_first_batches(ready, 1)
    assert rest.base_dataloader.seed == 3 and indices(rest) == [[5, 6, 7, 8, 9], [10, 11]]
    plain = accelerate.skip_first_batches(engine.ours(batch_size=5, seed=4), 2)
    assert type(plain) is coordl.DataLoader and plain.seed == 4 and indices(plain) == [[10, 11]]


def test_torchs_own_loaders_are_left_to_accelerate(engine: Engine) -> None:
    assert type(prepared(engine.stock()).base_dataloader) is torch.utils.data.DataLoader


@pytest.mark.parametrize("first", ["coordl", "accelerate"])
def test_it_does_not_matter_which_is_imported_first(first: str) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    second = {"coordl": "accelerate", "accelerate": "coordl"}[first]
    script = (
        f"import {first}; {first}.{'DataLoader' if first == 'coordl' else 'Accelerator'}\n"
        f"import {second}, coordl\n"
        "loader = coordl.DataLoader([1, 2], seed=5)\n"
        "from accelerate import Accelerator\n"
        "print(Accelerator(cpu=True).prepare(loader).base_dataloader.seed)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "5\n", done.stderr


def test_lightning_shards_our_loader_and_keeps_it_ours(lightning: Any, engine: Engine) -> None:
    data = importlib.import_module("lightning.fabric.utilities.data")
    loader = engine.ours(batch_size=4, seed=3)
    sampler = DistributedSampler(engine.dataset, 2, 1, shuffle=False)
    sharded = data._update_dataloader(loader, sampler)
    assert type(sharded) is coordl.DataLoader and sharded.seed == 3
    assert indices(sharded) == [[1, 3, 5, 7], [9, 11]]
    assert sharded.plan().splitlines()[2:] == loader.plan().splitlines()[2:]


def test_a_lightning_trainer_runs_on_pictures(
    lightning: Any, pictures: Path, tmp_path: Path
) -> None:
    seen: list[int] = []

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8 * 8 * 3, 12)

        def training_step(self, batch: Any, number: int) -> Any:
            seen.extend(batch[1].tolist())
            return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    steps = T.Compose([T.RandomResizedCrop(8), T.ToTensor()])
    loader: Any = coordl.DataLoader(
        coordl.ImageFolder(pictures, steps), 5, shuffle=True, num_workers=2, prep="native"
    )
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Model(), loader)
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert [epoch["native"] for epoch in loader.stats()["epochs"]] == [True, True]


def ours_under(wrapper: type) -> Any:
    """A wrapper that is written as a subclass of torch's loader, over coordl's."""
    return type("OverCoordl", (wrapper, coordl.DataLoader), {})


def test_timms_loader_over_ours_gives_the_same_epochs(torchvision: Any, engine: Engine) -> None:
    timm = pytest.importorskip("timm.data.loader", reason="timm is not installed")
    over_torch = timm.MultiEpochsDataLoader(engine.dataset, 5, **engine.options)
    over_ours = ours_under(timm.MultiEpochsDataLoader)(
        engine.dataset, 5, **engine.options, **engine.ours_only
    )
    assert len(over_ours) == 3
    for _ in range(3):
        assert same(list(over_ours), list(over_torch))


def test_timms_prefetcher_takes_our_minibatches(torchvision: Any, pictures: Path) -> None:
    timm = pytest.importorskip("timm.data.loader", reason="timm is not installed")
    steps = T.Compose([T.Resize((8, 8)), T.PILToTensor()])
    made = []
    for kind in (torch.utils.data.DataLoader, coordl.DataLoader):
        loader = kind(coordl.ImageFolder(pictures, steps), 5, num_workers=2)
        made.append(list(timm.PrefetchLoader(loader, device=torch.device("cpu"))))
    assert same(*made) and made[0][0][0].dtype == torch.float32


def test_ultralytics_loader_over_ours_gives_the_same_epochs_also_after_a_reset(
    torchvision: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(PIL.Image, "open", PIL.Image.open)  # Ultralytics puts another there
    build = pytest.importorskip("ultralytics.data.build", reason="ultralytics is not installed")
    over_torch = build.InfiniteDataLoader(engine.dataset, 5, **engine.options)
    over_ours = ours_under(build.InfiniteDataLoader)(
        engine.dataset, 5, **engine.options, **engine.ours_only
    )
    assert len(over_ours) == 3
    for _ in range(2):
        assert same(list(over_ours), list(over_torch))
        over_ours.reset()
        assert same(list(over_ours), list(over_torch))
    over_ours.close()
    over_torch.close()


class Named(torch.utils.data.Dataset):
    """As Hugging Face's models take them: samples are dictionaries."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.tensor([float(index), 1.0]), "labels": index}


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 12)
        self.seen: list[list[int]] = []

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(labels.tolist())
        logits = self.layer(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_hugging_faces_trainer_runs_on_our_loader(torchvision: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    class Trainer(transformers.Trainer):  # type: ignore[misc, name-defined]
        def get_train_dataloader(self) -> Any:
            ours: Any = coordl.DataLoader(Named(), 5, shuffle=True, num_workers=2, seed=1)
            return self.accelerator.prepare(ours)

    arguments = transformers.TrainingArguments(
        str(tmp_path),
        num_train_epochs=2,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    model = Linear()
    trainer = Trainer(model, arguments, train_dataset=Named())
    trainer.train()
    ours = trainer.callback_handler.train_dataloader.base_dataloader
    assert type(ours) is coordl.DataLoader and ours.seed == 1
    assert [epoch["samples"] for epoch in ours.stats()["epochs"]] == [12, 12]
    for epoch in (model.seen[:3], model.seen[3:]):
        assert sorted(index for minibatch in epoch for index in minibatch) == list(range(12))
