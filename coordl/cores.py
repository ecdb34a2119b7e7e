"""How many cores this process may use, and how many it gets: `num_workers="auto"`."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

from coordl.cgroups import cpu_quota

# A measurement takes ROUNDS × ROUND_S; the best round counts, so that a hiccup of others does not.
_ROUNDS, _ROUND_S = 3, 0.01
_CHUNK = bytes(1 << 20)  # hashed without the GIL, some ms at a time


def usable_cores() -> int:
    """Cores by affinity and CPU quota, shared among the ranks of this machine; at least 1."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    if quota is not None:
        cores = min(cores, int(quota))
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")  # torchrun, Lightning, Accelerate set it
    return max(1, cores // max(1, int(ranks) if ranks.isdecimal() else 1))


def auto_workers(native: bool) -> tuple[int, str]:
    """What `num_workers="auto"` is here and now, and why.

    Native threads: the usable cores. Worker processes: as many of them as are free, which is
    measured in 30 ms. None in a process that may not have children.
    """
    cores = usable_cores()
    if native:
        return cores, f"{cores} usable core(s)"
    if multiprocessing.current_process().daemon:
        return 0, "this is a worker process itself"
    free = max(1, round(measure_cores(cores)))
    return free, f"{free} free of {cores} usable core(s)"


def measure_cores(threads: int) -> float:
    """Cores' worth of time that so many busy threads get now; at most their number."""
    if threads == 1:
        return 1.0
    with ThreadPoolExecutor(threads) as pool:
        rounds = (sum(pool.map(_share_of_a_core, range(threads))) for _ in range(_ROUNDS))
        return max(rounds)


def _share_of_a_core(_: int) -> float:
    wall, used = time.perf_counter(), time.thread_time()
    while (passed := time.perf_counter() - wall) < _ROUND_S:
        hashlib.blake2b(_CHUNK)
    return min(1.0, (time.thread_time() - used) / passed)
