"""Which server an item belongs to: rendezvous hashing over the live members.

Every server computes the same owners from the same members, without a word between them. A member
that goes moves its own items only, evenly to the others; one that comes takes its share only.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); weights
as Schindelhauer and Schomaker, "Weighted distributed hash tables" (2005): score -w / ln(u).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 15  # hashes a step: its arrays stay in the processor's cache
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def owners(
    keys: NDArray[np.uint64],
    members: Sequence[str],
    weights: Sequence[float] | None = None,
) -> NDArray[np.int32]:
    """The position in `members` of each item's owner.

    A pure function of the set of (member, weight): their order changes positions only.

    Args:
        keys: (N, 2) uint64, as Items.keys.
        members: names of the live ones, none twice.
        weights: shares of the items, such as the members' budgets in bytes; equal by default.

    Returns:
        (N,) int32.

    Raises:
        ValueError: no members, one twice, or a weight that is no positive number.
    """
    if not members or len(set(members)) != len(members):
        raise ValueError(f"members are one or more different names, got {list(members)}")
    if weights is None:
        weights = [1.0] * len(members)
    if len(weights) != len(members) or not all(0 < weight < np.inf for weight in weights):
        raise ValueError(f"weights are positive numbers, one for each member, got {list(weights)}")
    keys = np.ascontiguousarray(keys, np.uint64).reshape(-1, 2)
    # Ties of scores are as good as impossible; by name they would still fall alike everywhere.
    by_name = np.array(sorted(range(len(members)), key=lambda at: members[at]), np.int32)
    seeds = _seeds(tuple(members[at] for at in by_name))
    shares = np.array(weights, np.float64)[by_name]
    found = np.empty(len(keys), np.int32)
    step = max(1, _AT_ONCE // len(members))
    for begin in range(0, len(keys), step):
        part = keys[begin : begin + step, None]
        price = -np.log(_uniform(part, seeds)) / shares
        found[begin : begin + step] = by_name[price.argmin(axis=1)]
    return found


@functools.lru_cache(maxsize=64)
def _seeds(members: tuple[str, ...]) -> NDArray[np.uint64]:
    """(M, 2): a key of each member."""
    digests = b"".join(blake2b(member.encode(), digest_size=16).digest() for member in members)
    return np.frombuffer(digests, "<u8").astype(np.uint64).reshape(-1, 2)


def _uniform(keys: NDArray[np.uint64], seeds: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(N, M) numbers in (0, 1), of item and member alone: 53 bits of a finished splitmix64."""
    hashed = _mixed(_mixed(keys[..., 0] ^ seeds[:, 0]) + (keys[..., 1] ^ seeds[:, 1]))
    result: NDArray[np.float64] = ((hashed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return result


def _mixed(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    h = (h ^ (h >> np.uint64(30))) * _MIX[0]
    h = (h ^ (h >> np.uint64(27))) * _MIX[1]
    mixed: NDArray[np.uint64] = h ^ (h >> np.uint64(31))
    return mixed
