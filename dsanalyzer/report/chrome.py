"""What happened when in a profile, as a Chrome trace: for ui.perfetto.dev or chrome://tracing.

One process for each of the two runs; in it a track of the phases, one of the training loop (waits
for minibatches, steps) and one of each loader worker (samples, collation). Times are those of one
clock of the machine.

Source: Trace Event Format, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dsanalyzer.report.document import Result

Timeline = list[dict[str, Any]]
RUNS = {"rates": "run 1: ingestion, delivery, prep", "fetch": "run 2: fetch"}
PHASES, LOOP, WORKERS = 1, 2, 10  # tracks of a run; workers from WORKERS on


def write(timelines: Sequence[tuple[str, Timeline]], result: Result, path: Path) -> None:
    """Writes `path`. Timelines are Measured.timelines."""
    path.write_text(json.dumps(document(timelines, result)))


def document(timelines: Sequence[tuple[str, Timeline]], result: Result) -> dict[str, Any]:
    """The trace as a JSON-able dict in the object format: times in microseconds from the first."""
    begins = [at for _, timeline in timelines for one in timeline for at in _times(one)]
    origin = min(begins, default=0.0)
    events = [
        event
        for number, (kind, timeline) in enumerate(timelines, 1)
        for event in _run(number, RUNS[kind], timeline, origin)
    ]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "command": " ".join(result["command"]),
            "created": result["created"],
            "emulated": "no" if result["emulated"] is None else result["emulated"]["how"],
        },
    }


def _times(one: dict[str, Any]) -> list[float]:
    times: list[float] = one["at_s"] if one["op"] == "pass" else [one["at_s"]]
    return times


def _run(number: int, name: str, timeline: Timeline, origin: float) -> Iterator[dict[str, Any]]:
    """Events of one run, its tracks named first."""
    passes = [one for one in timeline if one["op"] == "pass"]
    lanes = lanes_of([one for one in timeline if one["op"] == "loaded"])
    places = {lane: WORKERS + place for place, lane in enumerate(sorted(lanes))}

    def meta(kind: str, track: int, **values: Any) -> dict[str, Any]:
        return {"name": kind, "ph": "M", "pid": number, "tid": track, "args": values}

    yield meta("process_name", 0, name=name)
    named = {PHASES: "phases", LOOP: "training loop"}
    named |= {place: words_of(lane) for lane, place in places.items()}
    for track, words in named.items():
        yield meta("thread_name", track, name=words)
        yield meta("thread_sort_index", track, sort_index=track)

    def span(
        name: str, category: str, track: int, begin_s: float, lasts_s: float, **values: Any
    ) -> dict[str, Any]:
        return {
            "name": name,
            "cat": category,
            "ph": "X",
            "pid": number,
            "tid": track,
            "ts": (begin_s - origin) * 1e6,
            "dur": max(0.0, lasts_s) * 1e6,
            "args": values,
        }

    for one in passes:
        yield from _pass(one, span)
    for lane, minibatches in lanes.items():
        for one in minibatches:
            yield from _loaded(one, places[lane], span)


Lane = tuple[int, int, int]  # rank, worker (-1: the training process itself), which of several


def lanes_of(loaded: list[dict[str, Any]]) -> dict[Lane, list[dict[str, Any]]]:
    """Minibatches by track. Each pass starts workers anew, and those of one number follow one
    another; where two of them overlap (of two loaders) the later one gets a track of its own."""
    lanes: dict[Lane, list[dict[str, Any]]] = {}
    for one in sorted(loaded, key=lambda one: float(one["at_s"])):
        worker = -1 if one["worker"] is None else one["worker"]
        for number in itertools.count():
            lane = lanes.setdefault((one["rank"], worker, number), [])
            if not lane or lane[-1]["at_s"] + lane[-1]["wall_s"] <= one["at_s"]:
                lane.append(one)
                break
    return lanes


def words_of(lane: Lane) -> str:
    """The name of a worker's track."""
    rank, worker, number = lane
    text = f"worker {worker}" if worker >= 0 else "samples in the training process"
    text += f" of rank {rank}" if rank else ""
    return f"{text}, another loader" if number else text


def _pass(one: dict[str, Any], span: Any) -> Iterator[dict[str, Any]]:
    at_s, waits_s = one["at_s"], one["waits_s"]
    if not at_s:
        return
    # A step ends where the next minibatch is asked for (an end of the job's epoch, with what it
    # validates or saves, is in it); the last one after what it took.
    ends_s = [*at_s[1:], max(at_s[-1] + waits_s[-1], at_s[-1] + one["steps_s"][-1])]
    name = f"{one['phase']} {one['round']}"
    yield span(name, "phase", PHASES, at_s[0], ends_s[-1] - at_s[0], minibatches=len(at_s))
    for number, (asked_s, wait_s, end_s) in enumerate(zip(at_s, waits_s, ends_s, strict=True)):
        facts = {"phase": name, "minibatch": number}
        yield span("wait", "wait", LOOP, asked_s, wait_s, **facts)
        if one["phase"] not in ("drain", "sweep"):  # nobody trains there
            yield span("step", "step", LOOP, asked_s + wait_s, end_s - asked_s - wait_s, **facts)


def _loaded(one: dict[str, Any], track: int, span: Any) -> Iterator[dict[str, Any]]:
    """A minibatch of a worker: its samples (fetch and prep), and within the same span collation."""
    costs = {f"{name}_ms": one[f"{name}_s"] * 1e3 for name in ("cpu", "queued")}
    rest = max(0.0, one["wall_s"] - one["cpu_s"] - one["queued_s"])
    facts = {"samples": one["samples"], **costs, "else_ms": rest * 1e3, "process": one["pid"]}
    yield span("minibatch", "worker", track, one["at_s"], one["wall_s"], **facts)
    if one["collate_s"]:
        begin_s = one["collate_at_s"]
        yield span("fetch and prep", "worker", track, one["at_s"], begin_s - one["at_s"])
        yield span("collate", "worker", track, begin_s, one["collate_s"])
