"""What does a hit in the never-evict cache cost?

Measured, on one core: lookups per second in native code (random order, half of them misses in one
variant) and microseconds of `MinIOCache.get` from Python, with few items and with --items of them;
bytes of memory an entry costs beyond its payload; bytes per second of admitting (copy, checksum,
index; memory newly set aside included), of copying held items out and of the same copies from
private memory. Not measured: storage, prep, other processes at the same time. Keys are counters;
the index hashes them.

Usage: python benchmarks/cache_hit.py [--items 10000000] [--rounds 7] [--out benchmarks/results]
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
SMALL_BYTES = 64
PYTHON_LOOKUPS = 100_000  # a round's, of the small items


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


def shuffled(count: int, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(spread(count)[rng.permutation(count)])


def run(rounds: int, items: int) -> dict[str, dict[str, float]]:
    """Every measure, and "bytes_per_entry": index, record header and padding of the small items."""
    rng = np.random.default_rng(SEED)
    with (
        MinIOCache(items * SMALL_BYTES, name="bench-small", expected_items=items) as small,
        MinIOCache(
            LARGE_ITEMS * MEAN_BYTES, name="bench-large", expected_items=LARGE_ITEMS
        ) as large,
    ):
        small.arena._time_admissions(1, items, SMALL_BYTES)
        large.arena._time_admissions(1, LARGE_ITEMS, MEAN_BYTES)
        stats = small.stats()
        if stats["items"] != items or large.stats()["items"] != LARGE_ITEMS:
            raise SystemExit(f"only {stats['items']:,} of {items:,} items fit: see coordl doctor")
        hits, mixed = shuffled(items, rng), shuffled(2 * items, rng)
        few = shuffled(LARGE_ITEMS, rng)
        rows = [tuple(row) for row in few.tolist()]
        small_rows = [tuple(row) for row in hits[:PYTHON_LOOKUPS].tolist()]
        private = np.ones((LARGE_ITEMS, MEAN_BYTES), np.uint8)
        target = bytearray(MEAN_BYTES)

        def lookups(cache: MinIOCache, keys: np.ndarray, repeats: int) -> float:
            _, seconds = cache.arena._time_lookups(keys, repeats)
            return len(keys) * repeats / seconds

        def python_get(cache: MinIOCache, keys: list[tuple[int, ...]]) -> float:
            begin = time.perf_counter()
            for key in keys:
                cache.get(key)
            return (time.perf_counter() - begin) / len(keys) * 1e6

        def copy_out(views: list[memoryview]) -> float:
            begin = time.perf_counter()
            for view in views:
                target[:] = view
            return len(views) * MEAN_BYTES / (time.perf_counter() - begin) / 1e9

        def admit() -> float:
            with MinIOCache(500 * MEAN_BYTES, name="bench-admit", expected_items=500) as fresh:
                return 500 * MEAN_BYTES / fresh.arena._time_admissions(1, 500, MEAN_BYTES) / 1e9

        held = [view for row in rows if (view := large.get(row)) is not None]
        own = [private[i].data for i in rng.permutation(LARGE_ITEMS)]
        measured = median_of(
            rounds,
            {
                "hits_per_s_2k_items": lambda: lookups(large, few, 100),
                "hits_per_s_all_items": lambda: lookups(small, hits, 1),
                "half_misses_per_s_all_items": lambda: lookups(small, mixed, 1),
                "python_get_us_2k_items": lambda: python_get(large, rows),
                "python_get_us_all_items": lambda: python_get(small, small_rows),
                "admit_gb_per_s": admit,
                "copy_out_gb_per_s": lambda: copy_out(held),
                "copy_private_gb_per_s": lambda: copy_out(own),
            },
        )
    overhead = (stats["reserved_bytes"] - stats["used_bytes"]) / items
    measured["bytes_per_entry"] = dict.fromkeys(("median", "min", "max"), overhead)
    return measured


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--items", type=int, default=10_000_000, help="in the large index")
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
        "items": options.items,
        "results": run(options.rounds, options.items),
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
    lines += [
        "",
        f"2k items of {MEAN_BYTES:,} bytes, all: {options.items:,} of {SMALL_BYTES}.",
    ]
    lines += ["Made by `python benchmarks/cache_hit.py`; the script says what is not measured."]
    path = options.out / "cache_hit.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text() + f"\nWrote {path}")


if __name__ == "__main__":
    main()
