"""The result in sentences: what the GPU waits for, how sure that is, and what to do next."""

from __future__ import annotations

import math
import shlex

from dsanalyzer.predict.model import effective_cache, hit_rate
from dsanalyzer.report.document import Bound, Epoch, Interval, Result, Stall, Steady
from dsanalyzer.report.units import NBSP, percent, percent_range, rate, seconds, size
from dsanalyzer.report.workers import contention, crowding

CAUSES = {"fetch": "storage (fetch stall)", "prep": "decoding (prep stall)"}
CONTENDED = "cores rather than storage (a fetch stall by CPU contention)"
CROWDED = "busy cores rather than decoding (a prep stall by CPU contention)"
POLICY_WORDS = {"lru": "LRU", "never-evict": "never-evict", "pagecache": "page cache"}
THRESHOLD = 0.02  # of results that do not say: what versions before had
BOUND_WORDS = {"fetch": "fetch", "prep": "prep", "gpu": "GPU"}


def headline(result: Result) -> str:
    """The verdict in one sentence or two, intervals first."""
    stalls = {
        "fetch": result["steady"]["fetch_stall_s"],
        "prep": result["steady"]["prep_stall_s"],
    }
    found = {name: stall for name, stall in stalls.items() if stall["verdict"] == "stall"}
    unsettled = {name: s for name, s in stalls.items() if s["verdict"] == "inconclusive"}
    causes = CAUSES | ({"fetch": CONTENDED} if contention(result) else {})
    causes |= {"prep": CROWDED} if crowding(result) else {}
    delivered = _delivery_words(result)
    if len(found) == 2:
        total = wait_share(result)
        parts = sorted(found, key=lambda name: -found[name]["share"])
        reasons = ", ".join(f"{percent(found[name]['share'])} for {causes[name]}" for name in parts)
        return " ".join(
            [f"The GPU waits {_with_range(total)} of each epoch: {reasons}.", *delivered]
        )
    sentences = []
    for name, stall in found.items():
        shown = _with_range(_share(stall))
        sentences.append(f"The GPU waits {shown} of each epoch for {causes[name]}.")
    if not found and not unsettled:
        total = wait_share(result)
        return " ".join(
            [
                f"No data stall: the GPU is busy for {percent(1 - total['value'])} of each epoch "
                f"({percent_range(1 - total['high'], 1 - total['low'])}).",
                *(delivered or ["Only a faster GPU would shorten it."]),
            ]
        )
    if unsettled:
        ranges = " and ".join(
            f"the {name} stall may be {percent_range(s['share_low'], s['share_high'])}{NBSP}%"
            for name, s in unsettled.items()
        )
        sentences.append(f"Inconclusive: {ranges} of each epoch.")
    elif found:
        (other,) = stalls.keys() - found.keys()
        sentences.append(f"No {other} stall was found.")
    return " ".join([*sentences, *delivered])


def _delivery_words(result: Result) -> list[str]:
    """A sentence on delivery where it is as long as a stall has to be; else none."""
    steady = result["steady"]
    measured, whole = delivery_of(steady), steady["time_s"]["value"]
    if measured is None or measured["low"] < threshold_of(result) * whole:
        return []
    share = percent(measured["value"] / whole)
    return [
        f"Taking ready minibatches from workers (delivery) is {share} of each epoch: larger "
        "minibatches would shorten it."
    ]


def threshold_of(result: Result) -> float:
    """Share of the epoch from which a stall counts."""
    return result["steady"].get("threshold", THRESHOLD)


def repeat_advice(result: Result) -> str | None:
    """What to run where a verdict is inconclusive, else None."""
    steady = result["steady"]
    open_ones = [
        stall
        for stall in (steady["fetch_stall_s"], steady["prep_stall_s"])
        if stall["verdict"] == "inconclusive"
    ]
    if not open_ones:
        return None
    rounds = result["options"]["rounds"]
    if failed := sum(not check["ok"] for check in result["checks"]):
        which = "a failed check says" if failed == 1 else f"{failed} failed checks say"
        return f"The evidence does not suffice: {which} why, and what to do."
    needed = [stall.get("rounds_needed", rounds * 3) for stall in open_ones]
    if any(count is None for count in needed):
        floors = [stall.get("floor", steady.get("noise_floor", 0.0)) for stall in open_ones]
        if all(one["share"] >= floor for one, floor in zip(open_ones, floors, strict=True)):
            counts = percent(threshold_of(result))
            return (
                "More rounds would not settle it: the stall is about as large as one has to be to "
                f"count ({counts} of the epoch). Take it for small, or profile with another "
                "`--threshold`."
            )
        return (
            f"More rounds would not settle it: the stall is about as large as what can be told "
            f"here (noise floor {percent(max(floors))} of the epoch). Profile on an otherwise idle "
            "machine, or take it for small."
        )
    count = max(filter(None, needed), default=rounds * 3)
    return (
        f"{rounds} rounds were too few to settle it: profile again with `--rounds {count}` on an "
        "otherwise idle machine."
    )


def inconclusive(result: Result) -> bool:
    """Whether either stall is left open."""
    steady = result["steady"]
    return "inconclusive" in (steady["fetch_stall_s"]["verdict"], steady["prep_stall_s"]["verdict"])


def emulation(result: Result) -> str | None:
    """The sentence that must stand first where no real accelerator was measured."""
    emulated = result["emulated"]
    if emulated is None:
        return None
    return f"The GPU is emulated at {rate(emulated['gpu_rate'])}: {emulated['how']}."


def delivery_of(times: Epoch | Steady) -> Interval | None:
    """What taking ready minibatches out of workers takes of an epoch; None where not measured."""
    measured = times.get("delivery_s")
    return measured if measured is not None and measured["high"] > 0 else None


def wait_share(result: Result) -> Interval:
    """Share of an epoch that the GPU waits for data, 1 − compute/epoch time.

    The two times come from separate passes, so their relative half-widths add in quadrature.
    """
    compute, whole = result["steady"]["compute_s"], result["steady"]["time_s"]
    if whole["value"] <= 0:
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    ratio = compute["value"] / whole["value"]
    up = math.hypot(_above(compute), _below(whole))
    down = math.hypot(_below(compute), _above(whole))
    low, high = 1 - ratio * (1 + up), 1 - ratio * (1 - down)
    return {"value": 1 - ratio, "low": low, "high": min(high, 1.0)}


def _above(interval: Interval) -> float:
    return (interval["high"] / interval["value"] - 1) if interval["value"] > 0 else 0.0


def _below(interval: Interval) -> float:
    return (1 - interval["low"] / interval["value"]) if interval["value"] > 0 else 0.0


def _share(stall: Stall) -> Interval:
    return {"value": stall["share"], "low": stall["share_low"], "high": stall["share_high"]}


def _with_range(share: Interval) -> str:
    return f"{percent(share['value'])} ({percent_range(share['low'], share['high'])})"


def rate_unit_of(bound: Bound) -> str:
    """The letter of the rate that a bound names."""
    return {"fetch": "F", "prep": "P", "gpu": "G"}[bound]


def next_command(result: Result, path: str) -> list[str]:
    """The what-if command worth running next, as words."""
    bound, cached = result["steady"]["bound_by"], effective_cache(result)[1]
    words = ["dsanalyzer", "whatif", path]
    if contention(result):
        return [*words, "--cores", str(result["machine"]["cores"] * 2)]
    if bound == "fetch" and cached < 1:
        more = min(1.0, math.ceil((cached + 0.1) * 20 - 1e-9) / 20)
        words += ["--cache", f"{more:.0%}"]
    if bound == "gpu":
        return [*words, "--gpu-speedup", "2"]
    if bound == "prep" or result["steady"]["prep_stall_s"]["verdict"] == "stall":
        words += ["--cores", str(result["machine"]["cores"] * 2)]
    remote = any("://" in name for name in result["dataset"]["files"][:1])  # no rates of coordl's
    return words if result["loader"]["holds_cache"] or remote else [*words, "--loader", "coordl"]


def command_line(words: list[str]) -> str:
    """The command as one would type it."""
    return shlex.join(words)


def steady_epochs(result: Result) -> list[Epoch]:
    """The epochs after the first; all of them where there is no later one."""
    later = [epoch for epoch in result["epochs"] if epoch["epoch"] > 0]
    return later or result["epochs"]


def steady_storage_bytes(result: Result) -> float | None:
    """Mean bytes read from storage per epoch after the first; None where none was measured."""
    epochs = steady_epochs(result)
    if not epochs:
        return None
    return sum(epoch["storage_bytes"] for epoch in epochs) / len(epochs)


def steady_read_share(result: Result) -> float | None:
    """Share of the data set, in whole pages, read from storage per epoch after the first."""
    epochs = steady_epochs(result)
    return sum(epoch["read_share"] for epoch in epochs) / len(epochs) if epochs else None


def expected_share(result: Result) -> float | None:
    """Share of the bytes that the policy should read from storage per steady epoch.

    None for a loader that holds a cache of its own: the policy is the page cache's.
    """
    if result["loader"]["holds_cache"]:
        return None
    return 1 - hit_rate(result["options"]["policy"], result["options"]["cached_fraction"])


def setting(result: Result) -> str:
    """The measured setting: "LRU at 65 % cached, storage held to 15 MB/s (blkio cgroup)"."""
    options = result["options"]
    text = f"{POLICY_WORDS[options['policy']]} at {percent(options['cached_fraction'])} cached"
    if result["loader"]["holds_cache"]:
        held = percent(effective_cache(result)[1])
        text = (
            f"{held} cached by the loader itself, {percent(options['cached_fraction'])} beside it"
        )
    if options["storage_bytes_per_s"] is not None:
        held = f"{options['storage_bytes_per_s'] / 1e6:.3g}{NBSP}MB/s"
        text += f", storage held to {held} ({options['storage_method'] or 'method unknown'})"
    return text


def own_cost(result: Result) -> str | None:
    """What the profile itself took; None in results of before it was recorded."""
    tool, budget = result["tool"], result["options"].get("budget_s")
    if "took_s" not in tool:
        return None
    of = f" of a budget of {seconds(budget)}" if budget else ""
    held = ""
    if "peak_bytes" in tool:
        held = f"dsanalyzer held {size(tool['peak_bytes'])} of memory at most, "
    kept = f"minibatches kept in the job {size(tool['recorded_bytes'])}"
    return f"took {seconds(tool['took_s'])}{of}; {held}{kept}"


def loader_words(result: Result) -> str:
    """The loader as one phrase."""
    loader = result["loader"]
    workers = loader["num_workers"]
    text = f"{loader['class']}, {workers} worker{'' if workers == 1 else 's'}"
    if loader["batch_size"] is not None:
        text += f", minibatch of {loader['batch_size']}"
    if (ranks := loader.get("ranks", 1)) > 1:
        text += f", in each of {ranks} ranks"
    return text
