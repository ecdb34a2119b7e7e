"""Which server an item belongs to: rendezvous hashing over the live members.

Every server computes the same owners from the same members and the same items, without a word
between them. With given weights a member that goes moves its own items only, evenly to the others;
one that comes takes its share only.

Hashing alone gives shares that are uneven by chance, by 3 % of a thousand items to two members: a
full cache would leave so much out, and another has room for it. So the weights are fitted to the
data set. The price: with the members they change a little, and about as many items as chance had
made uneven move between those that stay.

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
_MOST_FITTED = 1 << 18  # hashes: 0.2 s
_FITS = 40
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
    by_name = _by_name(members)
    shares = np.array(weights, np.float64)[by_name]
    found = np.empty(len(keys), np.int32)
    step = max(1, _AT_ONCE // len(members))
    for begin in range(0, len(keys), step):
        prices = _prices(keys[begin : begin + step], [members[at] for at in by_name])
        found[begin : begin + step] = by_name[(prices / shares).argmin(axis=1)]
    return found


def fitted(
    keys: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    members: Sequence[str],
    weights: Sequence[float],
) -> tuple[float, ...]:
    """Weights for owners() that share these items' bytes as `weights` says, to about an item.

    Those given where it would take too long: with more than _MOST_FITTED items times members.

    Args:
        keys: (N, 2) uint64; zeros name no item, and what comes again is one item.
        sizes: (N,) int64, bytes.
        members, weights: as for owners(); in the order of members is what is returned.
    """
    if len(members) < 2 or len(keys) * len(members) > _MOST_FITTED:
        return tuple(weights)
    _, first = np.unique(keys[:, 0], return_index=True)  # a half of the hash tells them apart
    keys = keys[first]
    bytes_of = np.where(keys.any(axis=1), sizes[first], 0).astype(np.float64)
    if not bytes_of.any():
        return tuple(weights)
    by_name = _by_name(members)
    prices = _prices(keys, [members[at] for at in by_name])
    wanted = np.array(weights, np.float64)[by_name]
    share = wanted / wanted.sum() * bytes_of.sum()
    tried = best = wanted
    least: float = np.inf  # bytes that members have beyond their shares
    for step in np.linspace(1.0, 0.1, _FITS):
        has = np.bincount((prices / tried).argmin(axis=1), bytes_of, len(members))
        if (over := round(np.maximum(has - share, 0.0).sum())) < least:
            best, least = tried, over
        tried = tried * np.clip(share / np.maximum(has, 1.0), 0.5, 2.0) ** step
    found = np.empty(len(members))
    found[by_name] = best
    return tuple(found.tolist())


class Shares:
    """One data set's items, shared among members that change. Any thread may call it."""

    def __init__(self, keys: NDArray[np.uint64], sizes: NDArray[np.int64]) -> None:
        self._keys, self._sizes = keys, sizes
        self._fitted: dict[tuple[tuple[str, ...], tuple[float, ...]], tuple[float, ...]] = {}

    def owners(
        self, keys: NDArray[np.uint64], members: tuple[str, ...], weights: tuple[float, ...]
    ) -> NDArray[np.int32]:
        """As owners(), of any of the items."""
        return owners(keys, members, self.fit(members, weights))

    def fit(self, members: tuple[str, ...], weights: tuple[float, ...]) -> tuple[float, ...]:
        """fitted(), kept until they are others; it goes to workers with this."""
        given = members, weights
        if (found := self._fitted.get(given)) is None:
            found = fitted(self._keys, self._sizes, members, weights)
            self._fitted = {given: found}
        return found


def _by_name(members: Sequence[str]) -> NDArray[np.int32]:
    """Ties of scores are as good as impossible; by name they would still fall alike everywhere."""
    return np.array(sorted(range(len(members)), key=lambda at: members[at]), np.int32)


def _prices(keys: NDArray[np.uint64], members: Sequence[str]) -> NDArray[np.float64]:
    """(N, M): of an item to a member of weight 1."""
    prices: NDArray[np.float64] = -np.log(_uniform(keys[:, None], _seeds(tuple(members))))
    return prices


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
