"""Results to report on, built from rates by the model: every figure agrees with the rest."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

PHASES = ("ingestion", "prep", "fetch")


def interval(value: float, spread: float = 0.03) -> dict[str, float]:
    half = abs(value) * spread
    return {"value": value, "low": value - half, "high": value + half}


def hit_rate(policy: str, x: float) -> float:
    if policy == "never-evict" or x in (0, 1):
        return x
    return x + (1 - x) * math.log(1 - x)


def fetch_rate(policy: str, x: float, storage: float, cache: float) -> float:
    hit = hit_rate(policy, x)
    return 1 / (hit / cache + (1 - hit) / storage)


def build_result(
    *,
    gpu: float = 900,
    prep: float = 400,
    storage_bytes_per_s: float = 15e6,
    cache: float = 5000,
    policy: str = "lru",
    cached: float = 0.65,
    samples: int = 2400,
    item_bytes: float = 110_000,
    loader_class: str = "torch.utils.data.dataloader.DataLoader",
    emulated: bool = True,
    verdicts: tuple[str, str] = ("stall", "stall"),
    created: str = "2026-11-22T17:02:11+00:00",
    failed: bool = True,
) -> dict[str, Any]:
    """A result whose stalls, epochs, bytes and passes follow from its rates."""
    storage = storage_bytes_per_s / item_bytes
    steady_f = fetch_rate(policy, cached, storage, cache)

    def parts(fetch: float) -> dict[str, float]:
        compute = samples / gpu
        prep_end = max(samples / prep, compute)
        whole = max(samples / fetch, prep_end)
        return {
            "time_s": whole,
            "compute_s": compute,
            "prep_stall_s": prep_end - compute,
            "fetch_stall_s": whole - prep_end,
        }

    def epoch(number: int) -> dict[str, Any]:
        miss = 1.0 if number == 0 else 1 - hit_rate(policy, cached)
        own = parts(storage if number == 0 else steady_f)
        read = round(miss * samples * item_bytes)
        return {
            "epoch": number,
            "label": "first epoch, cold" if number == 0 else f"epoch {number}",
            **{key: interval(value) for key, value in own.items()},
            "storage_bytes": read,
            "device_bytes": round(read * 1.004),
            "read_share": miss,
            "speed": interval(samples / own["time_s"]),
        }

    whole = parts(steady_f)

    def stall(value: float, verdict: str) -> dict[str, Any]:
        share = value / whole["time_s"]
        half = share * 1.1 if verdict == "inconclusive" else 0.02
        return {
            **interval(value),
            "share": share,
            "share_low": share - half,
            "share_high": share + half,
            "verdict": verdict,
        }

    slowest = min((steady_f, "fetch"), (prep, "prep"), (gpu, "gpu"))
    result = {
        "schema": "dsanalyzer.result/1",
        "created": created,
        "tool": {
            "name": "dsanalyzer",
            "version": "0.1.0",
            "took_s": 61.0,
            "peak_bytes": 96_000_000,
            "recorded_bytes": 154_000_000,
        },
        "command": ["python", "examples/train_images.py", "--data", "photos", "--epochs", "3"],
        "machine": {
            "cpu": "AMD EPYC 9R45",
            "cores": 2,
            "memory_bytes": 8_254_390_272,
            "gpu": None if emulated else "NVIDIA H200",
            "kernel": "Linux 6.12.55",
            "python": "3.11.2",
            "torch": "2.13.0",
        },
        "options": {
            "policy": policy,
            "cached_fraction": cached,
            "storage_bytes_per_s": storage_bytes_per_s,
            "storage_method": "blkio cgroup",
            "gpu_rate": gpu if emulated else None,
            "rounds": 3,
            "samples": samples,
        },
        "emulated": {
            "gpu_rate": gpu,
            "how": "the model was replaced by a timed device queue after one real step",
        }
        if emulated
        else None,
        "loader": {
            "class": loader_class,
            "batch_size": 64,
            "num_workers": 2,
            "prefetch_factor": 2,
            "dataset_class": "torchvision.datasets.folder.ImageFolder",
            "start_method": "fork",
            "holds_cache": policy == "never-evict",
        },
        "dataset": {
            "samples": samples,
            "measured_samples": samples,
            "measured_bytes": round(samples * item_bytes),
            "mean_item_bytes": item_bytes,
            "files": ["photos/harbour/0001.jpg", "photos/harbour/0002.jpg"],
        },
        "rates": {
            letter: {**interval(value), "unit": "samples/s", "how": how}
            for letter, value, how in (
                ("G", gpu, "batches replayed from memory, loader shut down"),
                ("P", prep, "subset proved resident in memory"),
                ("S", storage, "cold reads"),
                ("C", cache, "resident reads"),
                ("F", steady_f, "from S and C at the policy's hit rate"),
            )
        },
        "epochs": [epoch(number) for number in range(3)],
        "steady": {
            "time_s": interval(whole["time_s"]),
            "compute_s": interval(whole["compute_s"]),
            "prep_stall_s": stall(whole["prep_stall_s"], verdicts[1]),
            "fetch_stall_s": stall(whole["fetch_stall_s"], verdicts[0]),
            "speed": interval(samples / whole["time_s"]),
            "bound_by": slowest[1],
        },
        "passes": _passes(gpu, prep, steady_f, samples, item_bytes, policy, cached),
        "storage": [
            {
                "queue_depth": depth,
                "samples_per_s": storage * gain,
                "low": storage * gain * 0.98,
                "high": storage * gain * 1.02,
                "bytes_per_s": storage_bytes_per_s * gain,
            }
            for depth, gain in ((1, 0.92), (4, 1.0))
        ],
        "model": {
            "predicted_speed": slowest[0] * 1.012,
            "measured_speed": slowest[0],
            "error": 0.012,
        },
        "checks": [
            {"name": "data cold before fetch", "ok": True, "detail": "0 of 63,210 pages resident"},
            {"name": "bytes match policy", "ok": True, "detail": "within 1 % of the expected"},
            {
                "name": "idle machine",
                "ok": not failed,
                "detail": "load 1.9 [2 cores] while measuring: rates may be low",
            },
        ],
        "diverted": ["/tmp/run/checkpoint.pt"],
        "notes": [],
    }
    return result


def _passes(
    gpu: float, prep: float, fetch: float, samples: int, item: float, policy: str, cached: float
) -> list[dict[str, Any]]:
    """Three rounds of each phase; steps vary around the phase's rate, slow ones in bursts."""
    draw = random.Random(7)
    passes: list[dict[str, Any]] = []
    start = 0.0
    for number in range(3):
        for phase, speed in zip(PHASES, (gpu, min(gpu, prep), min(gpu, prep, fetch)), strict=True):
            step = 64 / speed
            steps = [
                step * draw.uniform(0.85, 1.15) * (1.6 if i % 4 == 0 else 0.8) for i in range(38)
            ]
            waits = [max(0.0, s - 64 / gpu) + draw.uniform(1e-5, 2e-4) for s in steps]
            wall = sum(steps)
            miss = 1 - hit_rate(policy, cached)
            read = round(miss * samples * item) if phase == "fetch" else 0
            passes.append(
                {
                    "phase": phase,
                    "round": number,
                    "epoch": number if phase == "fetch" else None,
                    "samples": samples,
                    "wall_s": wall,
                    "steps_s": steps,
                    "waits_s": waits,
                    "read_bytes": read,
                    "device_bytes": read if phase == "fetch" else None,
                    "resident_before": {"ingestion": None, "prep": 1.0, "fetch": cached}[phase],
                    "resident_after": {"ingestion": None, "prep": 1.0, "fetch": cached}[phase],
                    "cpu_s": wall * 1.4,
                    "start_s": start,
                }
            )
            start += wall + 1
    return passes


def build_whatif(result: dict[str, Any]) -> dict[str, Any]:
    """Four changes to `result`, predicted by the model."""
    rates = {letter: rate["value"] for letter, rate in result["rates"].items()}
    samples, options = result["dataset"]["samples"], result["options"]
    base = result["steady"]["speed"]["value"]

    def scenario(
        name: str, policy: str, cached: float, changes: dict[str, Any], **new: float
    ) -> dict[str, Any]:
        own = {**rates, **new}
        own["F"] = fetch_rate(policy, cached, own["S"], own["C"])
        speed, bound = min((own["F"], "fetch"), (own["P"], "prep"), (own["G"], "gpu"))
        return {
            "name": name,
            "changes": changes,
            "rates": own,
            "policy": policy,
            "cached_fraction": cached,
            "speed": interval(speed, 0.05),
            "speedup": speed / base,
            "epoch_s": samples / speed,
            "bound_by": bound,
            "notes": [],
        }

    lru, x = options["policy"], options["cached_fraction"]
    grid = [i / 50 for i in range(51)]
    return {
        "schema": "dsanalyzer.whatif/1",
        "created": "2026-11-22T17:05:40+00:00",
        "result": "result.json",
        "baseline": {
            "speed": base,
            "bound_by": result["steady"]["bound_by"],
            "epoch_s": result["steady"]["time_s"]["value"],
        },
        "scenarios": [
            scenario("4 cores", lru, x, {"cores": 4}, P=rates["P"] * 2),
            scenario("cache 80%", lru, 0.8, {"cached_fraction": 0.8}),
            scenario("loader coordl", "never-evict", x, {"loader": "coordl"}, P=2100),
            scenario(
                "loader coordl + cache 80% + storage 30 MB/s",
                "never-evict",
                0.8,
                {"loader": "coordl", "cached_fraction": 0.8, "storage_bytes_per_s": 30e6},
                P=2100,
                S=rates["S"] * 2,
            ),
        ],
        "curves": [
            {
                "policy": policy,
                "x": grid,
                "F": [fetch_rate(policy, point, rates["S"], rates["C"]) for point in grid],
            }
            for policy in ("lru", "never-evict")
        ],
    }


@pytest.fixture
def result() -> dict[str, Any]:
    """The stock loader: fetch-bound, with prep stall too, one failed check, GPU emulated."""
    return build_result()


@pytest.fixture
def after() -> dict[str, Any]:
    """The same job with coordl."""
    return build_result(
        policy="never-evict",
        prep=2100,
        loader_class="coordl.delivery.loader.DataLoader",
        verdicts=("stall", "none"),
        created="2026-11-22T17:09:30+00:00",
        failed=False,
    )


@pytest.fixture
def whatif(result: dict[str, Any]) -> dict[str, Any]:
    return build_whatif(result)


@pytest.fixture
def make_result() -> Callable[..., dict[str, Any]]:
    return build_result


@pytest.fixture
def edited() -> Callable[..., dict[str, Any]]:
    """A copy of a document with one field, named by a path, set or (with no value) removed."""

    def edit(document: dict[str, Any], path: str, *value: Any) -> dict[str, Any]:
        new = copy.deepcopy(document)
        *parents, last = path.split(".")
        place = new
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if value:
            place[int(last) if isinstance(place, list) else last] = value[0]
        else:
            del place[last]
        return new

    return edit


@pytest.fixture
def printed() -> Callable[..., str]:
    """What a report function prints on a terminal of given width and encoding."""

    def run(function: Callable[..., None], *args: Any, **options: Any) -> str:
        width, encoding = options.pop("width", 80), options.pop("encoding", "utf-8")
        tty = options.pop("tty", False)

        class File(StringIO):
            def isatty(self) -> bool:
                return tty

        file = File()
        file.__class__.encoding = property(lambda self: encoding)  # type: ignore[assignment]
        console = Console(file=file, width=width, color_system="truecolor" if tty else "auto")
        function(*args, console, **options)
        return file.getvalue()

    return run
