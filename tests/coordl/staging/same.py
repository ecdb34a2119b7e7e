"""Whether two minibatches are the same in everything a user sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert ours.layout == theirs.layout and ours.requires_grad == theirs.requires_grad
        if theirs.layout is not torch.strided:
            ours, theirs = ours.to_dense(), theirs.to_dense()
        assert ours.stride() == theirs.stride()
        assert ours.storage_offset() == theirs.storage_offset()
        assert ours.untyped_storage().nbytes() == theirs.untyped_storage().nbytes()
        assert ours._is_view() == theirs._is_view() and ours.is_leaf == theirs.is_leaf
        bits = [t.contiguous().flatten().view(torch.uint8) for t in (ours, theirs) if t.numel()]
        assert not bits or torch.equal(*bits)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    elif isinstance(theirs, Mapping):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif hasattr(theirs, "__dict__"):
        assert_same(vars(ours), vars(theirs))
    else:
        assert ours == theirs
