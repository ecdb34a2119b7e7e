"""What changes cost, as a user states it in a TOML, JSON or YAML file.

currency = "USD"
per = "hour"                  # hour, month or once: what every price below is for

[machine]                     # optional: the present machine, for the cost of an epoch
price = 3.06

[cache]                       # memory for data, beyond what is cached now
per_GB = 0.004
max_GB = 400                  # optional: no more than this can be had

[cores]                       # beyond the machine's
each = 0.04
max = 32                      # optional: of the machine, all in all

[storage.nvme]                # any number of storages, by a name of your choice
rate = "3.5GB/s"              # optional where the name is hdd, sata-ssd or nvme
price = 0.10                  # or per_GB, of the data set

[gpu]                         # another one as many more times
each = 2.50
max = 8

[loader.coordl]               # optional: 0 where not given
price = 0
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsanalyzer import quantity

PERIODS = {"hour": 3600.0, "month": 730 * 3600.0, "once": math.inf}
_TABLES = {
    "machine": {"price"},
    "cache": {"per_GB", "max_GB"},
    "cores": {"each", "max"},
    "gpu": {"each", "max"},
}


class PriceError(ValueError):
    """A price file that cannot be used; the message names the file, the entry and what to write."""


@dataclass(frozen=True)
class Storage:
    """One storage to be had: bytes/s, and its price for a data set of any size or per GB."""

    name: str
    bytes_per_s: float
    price: float = 0.0
    per_gb: float = 0.0


@dataclass(frozen=True)
class Prices:
    """Prices in `currency` per `period` (hour, month or once). None: not to be had."""

    currency: str
    period: str
    machine: float | None = None
    cache_per_gb: float | None = None
    cache_max_gb: float = math.inf
    core: float | None = None
    cores_max: int | None = None
    gpu: float | None = None
    gpus_max: int | None = None
    storages: tuple[Storage, ...] = ()
    loaders: dict[str, float] = field(default_factory=dict)


def load(path: Path) -> Prices:
    """Reads a price file; its suffix says the format.

    Raises:
        PriceError: missing, not in the format, or an entry that is none of the above.
    """
    return _checked(_parsed(path), str(path))


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise PriceError(f"{path} cannot be read: {why}") from None
    kind = path.suffix.lower()
    try:
        if kind == ".toml":
            return tomllib.loads(text)
        if kind == ".json":
            return json.loads(text)
        if kind in (".yaml", ".yml"):
            return _yaml(path, text)
    except PriceError:
        raise
    except Exception as error:  # of three parsers
        raise PriceError(f"{path} is no {kind[1:].upper()}: {error}") from None
    raise PriceError(f"{path}: write the prices as .toml, .json or .yaml")


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise PriceError(
            f"{path}: reading YAML needs PyYAML, which is not installed; write the same as TOML or "
            "JSON, or `pip install pyyaml`"
        ) from None
    return yaml.safe_load(text)


def _checked(given: Any, name: str) -> Prices:
    if not isinstance(given, dict):
        raise PriceError(f"{name} holds no table of prices; see `dsanalyzer whatif --help`")
    known = {"currency", "per", "storage", "loader", *_TABLES}
    if unknown := sorted(set(given) - known):
        raise PriceError(
            f"{name}: {unknown[0]!r} is not known; there are {', '.join(sorted(known))}"
        )
    period = given.get("per", "hour")
    if period not in PERIODS:
        raise PriceError(f"{name}: per = {period!r}; write one of {', '.join(PERIODS)}")
    tables = {key: _table(given.get(key, {}), f"{name}: {key}", _TABLES[key]) for key in _TABLES}
    storages = given.get("storage", {})
    loaders = given.get("loader", {})
    for key, table in (("storage", storages), ("loader", loaders)):
        if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
            raise PriceError(f"{name}: {key} holds tables by name, as [{key}.NAME]")
    return Prices(
        currency=str(given.get("currency", "")),
        period=period,
        machine=tables["machine"].get("price"),
        cache_per_gb=tables["cache"].get("per_GB"),
        cache_max_gb=tables["cache"].get("max_GB", math.inf),
        core=tables["cores"].get("each"),
        cores_max=_whole(tables["cores"].get("max")),
        gpu=tables["gpu"].get("each"),
        gpus_max=_whole(tables["gpu"].get("max")),
        storages=tuple(_storage(key, value, name) for key, value in storages.items()),
        loaders={
            key: _table(value, f"{name}: loader.{key}", {"price"}).get("price", 0.0)
            for key, value in loaders.items()
        },
    )


def _storage(key: str, value: dict[str, Any], name: str) -> Storage:
    where = f"{name}: storage.{key}"
    numbers = {k: v for k, v in value.items() if k != "rate"}
    prices = _table(numbers, where, {"price", "per_GB"})
    if not prices:
        raise PriceError(f"{where} has no price; write price = 0.10, or per_GB = 0.0001")
    try:
        rate = quantity.bytes_per_s(str(value.get("rate", key)))
    except ValueError as error:
        raise PriceError(f"{where}: {error} (as rate)") from None
    return Storage(key, rate, prices.get("price", 0.0), prices.get("per_GB", 0.0))


def _table(given: Any, where: str, known: set[str]) -> dict[str, float]:
    if not isinstance(given, dict):
        raise PriceError(f"{where} is {given!r}; write a table with {', '.join(sorted(known))}")
    for key, value in given.items():
        if key not in known:
            raise PriceError(f"{where}: {key!r} is not known; there are {', '.join(sorted(known))}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise PriceError(f"{where}.{key} is {value!r}; write a number from 0")
    return {key: float(value) for key, value in given.items()}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
