"""What does a hit in the never-evict cache cost?

Measured, on one core: lookups per second in native code (random order, half of them misses in one
variant), microseconds of `MinIOCache.get` from Python, and bytes per second of admitting (copy,
checksum, index; memory newly set aside included) and of copying a held item out. Not measured:
storage, prep, other processes at the same time. Keys are counters spread by a multiplication.

Usage: python benchmarks/cache_hit.py [--rounds 7] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from coordl.fetch.cache import MinIOCache

SEED = 1
MEAN_BYTES = 110_000  # an ImageNet photograph
LARGE_ITEMS = 2_000
SMALL_ITEMS = 1_000_000  # an index beyond the CPU's caches


def spread(count: int) -> np.ndarray:
    """(count, 2) uint64 keys, all different."""
    numbers = np.arange(1, count + 1, dtype=np.uint64)
    return np.stack([numbers, ~numbers], axis=1)


def median_of(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, dict[str, float]]:
    """Median, least and largest of every measure, taken in turns after one warm-up each."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for round_ in range(rounds + 1):
        for name, measure in measures.items():
            value = measure()
            if round_:
                values[name].append(value)
    return {
        name: {"median": statistics.median(v), "min": min(v), "max": max(v)}
        for name, v in values.items()
    }


def run(rounds: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(SEED)
    with (
        MinIOCache(SMALL_ITEMS * 64, name="bench-small", expected_items=SMALL_ITEMS) as small,
        MinIOCache(
            LARGE_ITEMS * MEAN_BYTES, name="bench-large", expected_items=LARGE_ITEMS
        ) as large,
    ):
        small.arena._time_admissions(1, SMALL_ITEMS, 64)
        large.arena._time_admissions(1, LARGE_ITEMS, MEAN_BYTES)
        hits = np.ascontiguousarray(spread(SMALL_ITEMS)[rng.permutation(SMALL_ITEMS)])
        mixed = np.ascontiguousarray(spread(2 * SMALL_ITEMS)[rng.permutation(2 * SMALL_ITEMS)])
        few = np.ascontiguousarray(spread(LARGE_ITEMS)[rng.permutation(LARGE_ITEMS)])
        rows = [tuple(row) for row in few.tolist()]

        def lookups(cache: MinIOCache, keys: np.ndarray, repeats: int) -> float:
            _, seconds = cache.arena._time_lookups(keys, repeats)
            return len(keys) * repeats / seconds

        def python_get() -> float:
            begin = time.perf_counter()
            for key in rows:
                large.get(key)
            return (time.perf_counter() - begin) / len(rows) * 1e6

        def copy_out() -> float:
            views = [large.get(key) for key in rows]
            target = bytearray(MEAN_BYTES)
            begin = time.perf_counter()
            for view in views:
                target[:] = view  # type: ignore[arg-type]
            return len(rows) * MEAN_BYTES / (time.perf_counter() - begin) / 1e9

        def admit() -> float:
            with MinIOCache(500 * MEAN_BYTES, name="bench-admit", expected_items=500) as fresh:
                return 500 * MEAN_BYTES / fresh.arena._time_admissions(1, 500, MEAN_BYTES) / 1e9

        return median_of(
            rounds,
            {
                "hits_per_s_2k_items": lambda: lookups(large, few, 100),
                "hits_per_s_1m_items": lambda: lookups(small, hits, 1),
                "half_misses_per_s_1m_items": lambda: lookups(small, mixed, 1),
                "python_get_us": python_get,
                "admit_gb_per_s": admit,
                "copy_out_gb_per_s": copy_out,
            },
        )


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--note", default="", help="what else ran, if the machine was not idle")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    result = {
        "question": "What does a hit in the never-evict cache cost?",
        "machine": {"cpu": cpu_name(), "kernel": platform.release(), "cores_used": 1},
        "python": platform.python_version(),
        "seed": SEED,
        "rounds": options.rounds,
        "note": options.note,
        "results": run(options.rounds),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cache_hit.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = [
        "# What does a hit in the never-evict cache cost?",
        "",
        f"{cpu_name()}, one core, {options.rounds} interleaved rounds after a warm-up, median "
        f"(least … largest). {options.note}".rstrip(),
        "",
        "| measure | median | spread |",
        "|---|---|---|",
    ]
    for name, value in result["results"].items():  # type: ignore[attr-defined]
        lines.append(
            f"| {name} | {value['median']:,.4g} | {value['min']:,.4g} … {value['max']:,.4g} |"
        )
    lines += ["", f"Items of {MEAN_BYTES:,} bytes (2k items) and of 64 bytes (1M items)."]
    lines += ["Made by `python benchmarks/cache_hit.py`; the script says what is not measured."]
    path = options.out / "cache_hit.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text() + f"\nWrote {path}")


if __name__ == "__main__":
    main()
