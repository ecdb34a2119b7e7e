"""How fast storage and memory deliver items, without the job: S by queue depth, and C.

Runs as a process of its own so that it can join the job's read throttle:
`python -m dsanalyzer.measure.storage REQUEST.json` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from typing import Any

from dsanalyzer.measure import objects, residency, timing
from dsanalyzer.measure.mounts import mount_of


def deliver(paths: list[str], depth: int, limit_s: float, cold: bool) -> dict[str, Any]:
    """Read whole files with `depth` threads until they run out or `limit_s` has passed.

    Returns samples_per_s and bytes_per_s, and `read_bytes`, what the block layer was asked for:
    for a cold run it must be at least the bytes read, else memory answered. Where nobody counts
    that (mounts.py), it is the pages that were not in memory.
    """
    absent: dict[str, int] | None = None
    if cold:
        for path in paths:
            residency.evict(path)
        if paths and mount_of(paths[0]).served:
            absent = {path: _absent_bytes(path) for path in paths}
        if paths and objects.is_object(paths[0]):
            objects.fetch(paths[0])  # makes the client and connects
    queue = iter(paths)
    failures: list[Exception] = []
    lock = threading.Lock()
    done = [0, 0, 0]
    finished_s: list[float] = []
    reads: list[tuple[int, float]] = []
    before = _read_bytes()
    started = timing.clock()

    def read() -> None:
        buffer = bytearray(1 << 20)
        while timing.clock() - started < limit_s:
            with lock:
                path = next(queue, None)
            if path is None:
                return
            asked = timing.clock()
            absent_object = cold and objects.is_object(path)
            try:
                count = objects.fetch(path) if absent_object else residency.warm(path, buffer)
            except Exception as error:
                failures.append(error)
                return
            with lock:
                reads.append((count, timing.clock() - asked))
                done[0] += 1
                done[1] += count
                done[2] += absent[path] if absent else 0
                finished_s.append(timing.clock() - started)

    threads = [threading.Thread(target=read) for _ in range(depth)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    elapsed = timing.clock() - started
    return {
        "queue_depth": depth,
        "samples_per_s": done[0] / elapsed,
        "bytes_per_s": done[1] / elapsed,
        "samples": done[0],
        "bytes": done[1],
        "read_bytes": _read_bytes() - before if absent is None else done[2],
        "slices": slices(finished_s, elapsed),
        "by_size": by_size(reads),
    }


def by_size(reads: list[tuple[int, float]], classes: int = 3) -> list[dict[str, float]]:
    """Mean bytes and seconds of a read, for so many classes of equally many items, smallest first.

    `reads` holds the bytes and the seconds of each. Fewer classes where there are few reads.
    """
    ordered = sorted(reads)
    count = min(classes, len(ordered))
    parts = [
        ordered[len(ordered) * n // count : len(ordered) * (n + 1) // count] for n in range(count)
    ]
    return [
        {
            "item_bytes": sum(size for size, _ in part) / len(part),
            "read_s": sum(lasted for _, lasted in part) / len(part),
        }
        for part in parts
    ]


def slices(finished_s: list[float], elapsed_s: float, count: int = 10) -> list[float]:
    """Samples/s in equal parts of the run: how steady the storage was."""
    width = elapsed_s / count
    filled = [0] * count
    for moment in finished_s:
        filled[min(count - 1, int(moment / width))] += 1
    return [number / width for number in filled]


def _absent_bytes(path: str) -> int:
    resident, total, _ = residency.resident_pages(path)
    return (total - resident) * residency.PAGE_BYTES


def _read_bytes() -> int:
    with open("/proc/self/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("read_bytes"))


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """`request`: paths, depths, limit_s per depth, seed. Cold at each depth, then warm once.

    Every depth has its own part of the files, of sizes like all the others': dealt out by size.
    """
    sorted_by_size = sorted(request["paths"], key=lambda path: (os.path.getsize(path), path))
    rng = random.Random(request["seed"])
    cold = []
    for number, depth in enumerate(request["depths"]):
        part = sorted_by_size[number :: len(request["depths"])] or sorted_by_size
        rng.shuffle(part)
        cold.append(deliver(part, depth, request["limit_s"], cold=True))
    paths = list(request["paths"])
    rng.shuffle(paths)
    buffer = bytearray(1 << 20)
    resident = paths[: min(len(paths), 512)]
    for path in resident:
        residency.warm(path, buffer)
    return {"cold": cold, "warm": deliver(resident, 1, request["limit_s"], cold=False)}


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print(json.dumps(measure(json.load(file))))
