"""The emulated accelerator keeps time like a device and leaves the rest of a step as it is."""

import importlib
from collections import OrderedDict

import pytest
import torch
from torch import nn

from dsanalyzer.hooks.emulate import DeviceQueue, Emulator
from dsanalyzer.measure import timing


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(timing, "clock", lambda: now[0])
    monkeypatch.setattr(timing, "sleep", sleep)
    return now


def test_the_host_runs_two_steps_ahead_and_then_waits(clock):
    queue = DeviceQueue(samples_per_s=100)
    for _ in range(2):
        queue.submit(50)
    assert clock[0] == 0.0

    queue.submit(50)
    assert clock[0] == pytest.approx(0.5)

    queue.synchronize()
    assert clock[0] == pytest.approx(1.5)


def test_a_host_slower_than_the_device_never_waits(clock):
    queue = DeviceQueue(samples_per_s=100)
    for _ in range(5):
        clock[0] += 1.0
        queue.submit(50)

    assert clock[0] == pytest.approx(5.0)


@pytest.fixture
def optimizer_hooks(monkeypatch):
    """The global step hooks of torch.optim, taken off again afterwards."""
    module = importlib.import_module("torch.optim.optimizer")
    for name in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"):
        monkeypatch.setattr(module, name, OrderedDict())
    return module


def step(model, optimizer, images):
    loss = nn.functional.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.long))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def test_after_one_real_step_the_model_computes_nothing_and_the_job_goes_on(clock, optimizer_hooks):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    emulator = Emulator(100, optimizer_hooks)
    emulator.watch()
    before = model[1].weight.detach().clone()
    step(model, optimizer, torch.rand(4, 3, 2, 2))
    learned = model[1].weight.detach().clone()
    assert not torch.equal(before, learned)

    loss = step(model, optimizer, torch.rand(4, 3, 2, 2))
    emulator.settle()

    assert torch.equal(model[1].weight, learned), "the optimizer had something to update"
    assert all(p.grad is not None for p in model.parameters())
    assert torch.isfinite(loss)
    assert "Sequential" in emulator.how


def test_a_step_of_two_models_is_paid_for_once(clock, optimizer_hooks):
    body, head = nn.Linear(12, 8), nn.Linear(8, 5)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1)
    emulator = Emulator(100, optimizer_hooks)
    emulator.watch()
    for _ in range(5):
        emulator.owed = 4
        step(lambda x: head(body(x)), optimizer, torch.rand(4, 12))
    emulator.synchronize()

    # All steps but the first, which was real, at 4 samples in 0.04 s.
    assert clock[0] == pytest.approx(4 * 0.04)


def test_images_in_a_list_are_so_many_samples(clock, optimizer_hooks):
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(12, 5)

        def forward(self, images):
            return self.layer(torch.stack(images).flatten(1))

    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    emulator = Emulator(100, optimizer_hooks)
    emulator.watch()
    for _ in range(3):
        emulator.owed = 8
        step(model, optimizer, [torch.rand(3, 2, 2) for _ in range(8)])
    emulator.synchronize()

    assert clock[0] == pytest.approx(2 * 0.08)


def test_a_smaller_last_batch_gets_outputs_of_its_own_length(clock, optimizer_hooks):
    model = nn.Linear(3, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    emulator = Emulator(100, optimizer_hooks)
    emulator.watch()
    step(model, optimizer, torch.rand(4, 3))

    assert model(torch.rand(2, 3)).shape == (2, 5)
    assert model(torch.rand(9, 3)).shape == (9, 5)


def test_gradient_clipping_and_scaling_still_find_gradients(clock, optimizer_hooks):
    model = nn.Linear(3, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    Emulator(100, optimizer_hooks).watch()
    step(model, optimizer, torch.rand(4, 3))
    optimizer.zero_grad()
    model(torch.rand(4, 3)).sum().backward()

    assert torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) == 0.0
