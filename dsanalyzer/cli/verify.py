"""`dsanalyzer whatif --verify`: predicted points that the tool can bring about are run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from dsanalyzer.measure.not_measured import NotMeasured
from dsanalyzer.measure.options import Options
from dsanalyzer.measure.run_directory import run_directory
from dsanalyzer.measure.session import Session
from dsanalyzer.report.document import Result, Scenario

# What the tool itself can change of a job without touching it.
ENACTED = {"cached_fraction", "policy", "storage_bytes_per_s", "gpu_speedup"}


def why_not(result: Result, scenario: Scenario) -> str | None:
    """Why the scenario cannot be run here, else None."""
    changes = scenario["changes"]
    if others := sorted(set(changes) - ENACTED):
        return f"{', '.join(others).replace('_', ' ')} cannot be changed by the tool"
    if "gpu_speedup" in changes and result["emulated"] is None:
        return "a real accelerator does not become faster"
    if changes.get("policy") == "pagecache":
        return "the kernel's own page cache is not what the tool enforces"
    if result["loader"]["holds_cache"] and {"cached_fraction", "policy"} & set(changes):
        return "the loader's own cache is set in the script"
    asked, held = changes.get("storage_bytes_per_s"), result["options"]["storage_bytes_per_s"]
    reached = max(row["bytes_per_s"] for row in result["storage"])
    if asked is not None and held is None and asked > reached:
        return f"storage here gives {reached / 1e6:.0f} MB/s at most"
    return None


def options_of(result: Result, scenario: Scenario) -> Options:
    """The profile's options with the scenario's changes."""
    asked, changes = result["options"], scenario["changes"]
    rate, faster = asked["gpu_rate"], changes.get("gpu_speedup", 1.0)
    kept: dict[str, Any] = {
        name: value for name, value in asked.items() if name in ("epochs", "budget_s", "threshold")
    }
    return Options(
        policy=changes.get("policy", asked["policy"]),
        cached_fraction=changes.get("cached_fraction", asked["cached_fraction"]),
        storage_bytes_per_s=changes.get("storage_bytes_per_s", asked["storage_bytes_per_s"]),
        gpu_rate=None if rate is None else rate * faster,
        gpu_trace=tuple(step_s / faster for step_s in asked.get("gpu_trace", ())),
        samples=asked["samples"],
        rounds=asked["rounds"],
        **kept,
    )


def verify(result: Result, scenario: Scenario, progress: Any) -> dict[str, Any]:
    """Runs the scenario: measured speed, error of the prediction, failed checks; or why not."""
    from dsanalyzer import result as results

    if reason := why_not(result, scenario):
        return {"why_not": reason}
    options = options_of(result, scenario)
    try:
        with contextlib.chdir(result.get("directory", ".")), run_directory() as directory:
            measured = Session(result["command"], options, directory, progress).measure()
        found = results.build(result["command"], options, measured)
    except (NotMeasured, FileNotFoundError) as error:
        said = getattr(error, "log", "").strip().splitlines()[-1:]
        return {"why_not": ": ".join([str(error), *said]), "failed": True}
    speed = found["steady"]["speed"]
    return {
        "speed": speed,
        "error": scenario["speed"]["value"] / speed["value"] - 1,
        "doubts": [check["name"] for check in found["checks"] if not check["ok"]],
    }


def verify_all(
    result: Result, scenarios: list[Scenario], make_progress: Callable[[str], Any]
) -> None:
    """Adds `verified` to every scenario, one run after the other."""
    for scenario in scenarios:
        scenario["verified"] = verify(  # type: ignore[typeddict-item]
            result, scenario, make_progress(scenario["name"])
        )
