"""Which change is worth its price: every fix a price file offers, alone and with others, ranked.

Candidates are steps of memory, cores and GPUs, every storage, and coordl. All are tried by the
closed form, the best by the simulator. With the present machine's price known, the ranking is by
the cost of an epoch; else fixes that remove the stall come first, cheapest first, and then the
others by speedup gained per price.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dsanalyzer.predict.change import Change
from dsanalyzer.predict.prices import PERIODS, Prices
from dsanalyzer.predict.whatif import Basis, predict, rates_of
from dsanalyzer.report.document import Result, Scenario

SHOWN = 8
SIMULATED = 12  # candidates that the simulator is asked about
MOST_TOGETHER = 3  # changes in one fix
STALL_FREE = 0.95  # of the ingestion rate
GIGABYTE = 1e9


@dataclass(frozen=True)
class Fix:
    """A change, what it costs beyond the present, and in which units."""

    kind: str
    change: Change
    price: float


def candidates(result: Result, prices: Prices, setup_cached: float, coordl: bool) -> list[Fix]:
    """Single fixes that have a price."""
    data_gb = result["dataset"]["samples"] * result["dataset"]["mean_item_bytes"] / GIGABYTE
    cores = result["machine"]["cores"]
    found = []
    if prices.cache_per_gb is not None:
        for fraction in (0.35, 0.5, 0.65, 0.8, 0.9, 1.0):
            more = (fraction - setup_cached) * data_gb
            if 0.005 * data_gb < more and fraction * data_gb <= prices.cache_max_gb:
                change = Change(cached_fraction=fraction)
                found.append(Fix("cache", change, more * prices.cache_per_gb))
    if prices.core is not None:
        for factor in (1.5, 2, 3, 4, 8):
            count = math.ceil(cores * factor)
            if count <= (prices.cores_max or count):
                found.append(Fix("cores", Change(cores=count), (count - cores) * prices.core))
    if prices.gpu is not None:
        own = result["loader"].get("ranks", 1)
        for count in (2, 4, 8, 16):
            if own < count <= (prices.gpus_max or max(8, 2 * own)):
                found.append(Fix("gpu", Change(gpus=count), (count - own) * prices.gpu))
    for storage in prices.storages:
        price = storage.price + storage.per_gb * data_gb
        change = Change(storage_bytes_per_s=storage.bytes_per_s)
        found.append(Fix("storage", change, price))
    if coordl:
        price = prices.loaders.get("coordl", 0.0)
        found.append(Fix("loader", Change(loader="coordl"), price))
    return found


def bundles(single: list[Fix]) -> list[Fix]:
    """Single fixes, and all of different kinds together, up to three."""
    made = list(single)
    for count in range(2, MOST_TOGETHER + 1):
        for parts in combinations(single, count):
            if len({part.kind for part in parts}) < count:
                continue
            change = parts[0].change
            for part in parts[1:]:
                change = change.merged(part.change)
            made.append(Fix("+".join(p.kind for p in parts), change, sum(p.price for p in parts)))
    return made


def rank(basis: Basis, prices: Prices, loader_rates: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The best fixes, best first, as the what-if file holds them."""
    result = basis.result
    single = candidates(
        result, prices, basis.setup.cached_fraction, coordl=loader_rates is not None
    )

    def answer(fix: Fix, simulated: bool) -> Scenario:
        rates = rates_of(fix.change, loader_rates) if fix.change.loader else None
        return predict(basis, fix.change, rates, simulator=simulated)

    quick = [(fix, _judged(fix, answer(fix, False), prices, result)) for fix in bundles(single)]
    quick.sort(key=lambda pair: pair[1]["order"])
    best = [(fix, _judged(fix, answer(fix, True), prices, result)) for fix, _ in quick[:SIMULATED]]
    best.sort(key=lambda pair: pair[1]["order"])
    worth = [judged for _, judged in best if judged["speedup"] > 1.01]
    for judged in worth:
        del judged["order"]
    return worth[:SHOWN]


def _judged(fix: Fix, scenario: Scenario, prices: Prices, result: Result) -> dict[str, Any]:
    """A fix with its figures, and `order`, which sorts it."""
    speed = scenario["speed"]["value"]
    gpu = scenario["rates"]["G"] or speed
    free = speed >= STALL_FREE * gpu
    gained = scenario["speedup"] - 1
    per_epoch = None
    if prices.machine is not None and prices.period != "once":
        per_epoch = (prices.machine + fix.price) * scenario["epoch_s"] / PERIODS[prices.period]
    if per_epoch is not None:
        order: tuple[float, ...] = (per_epoch, -speed)
    elif free:
        order = (0, fix.price, -speed)
    else:
        order = (1, -gained / fix.price if fix.price else -math.inf, -gained)
    return {
        "name": scenario["name"],
        "changes": scenario["changes"],
        "price": fix.price,
        "currency": prices.currency,
        "per": prices.period,
        "cost_per_epoch": per_epoch,
        "speed": scenario["speed"],
        "speedup": scenario["speedup"],
        "epoch_s": scenario["epoch_s"],
        "removes_stall": free,
        "bound_by": scenario["bound_by"],
        "order": order,
    }


def present_cost(result: Result, prices: Prices) -> float | None:
    """What an epoch costs now, where the machine's price is known."""
    if prices.machine is None or prices.period == "once":
        return None
    epoch_s = result["dataset"]["samples"] / result["steady"]["speed"]["value"]
    return prices.machine * epoch_s / PERIODS[prices.period]
