"""Ready minibatches out of workers like the loader's own: what delivery is measured with."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader

import coordl
import dsanalyzer
from dsanalyzer.hooks import delivery

RECORDED = [{"x": torch.full((4, 3), float(n)), "name": ["a", str(n)]} for n in range(2)]


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_recorded_minibatches_come_back_out_of_workers(context):
    loader = DataLoader([0] * 8, 4, num_workers=2, multiprocessing_context=context)
    torch.manual_seed(3)
    before = torch.get_rng_state()

    delivered = delivery.opened(loader, RECORDED, count=5)

    assert torch.equal(torch.get_rng_state(), before)  # the job's generator is not drawn from
    assert delivered is not None
    got = list(delivered)
    assert len(got) == 5
    for batch, recorded in zip(got, itertools.cycle(RECORDED), strict=False):
        assert torch.equal(batch["x"], recorded["x"]) and batch["name"] == recorded["name"]
        assert batch["x"].is_shared()  # it came from another process
    assert not RECORDED[0]["x"].is_shared()


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader([0] * 8, 4),
        dsanalyzer.wrap([1, 2]),
        coordl.DataLoader([0] * 8, 4, num_workers=2),
    ],
    ids=["no workers", "wrapped", "coordl"],
)
def test_where_delivery_is_not_torchs_nothing_is_opened(loader):
    assert delivery.opened(loader, RECORDED, count=5) is None
