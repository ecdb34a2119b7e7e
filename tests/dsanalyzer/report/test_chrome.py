"""The Chrome trace: events as the Trace Event Format wants them, on tracks on which they nest."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from dsanalyzer.report import chrome


def minibatch(worker, at_s, wall_s, *, collate_s=0.01, rank=0):
    return {
        "op": "loaded", "samples": 16, "wall_s": wall_s, "cpu_s": wall_s / 2, "queued_s": 0.001,
        "collate_s": collate_s, "collate_at_s": at_s + wall_s - collate_s, "at_s": at_s,
        "pid": 100 + (worker or 0), "worker": worker, "rank": rank,
    }  # fmt: skip


def one_pass(phase, at_s, waits_s, steps_s):
    return {"op": "pass", "phase": phase, "round": 0, "at_s": at_s, "waits_s": waits_s,
            "steps_s": steps_s}  # fmt: skip


TIMELINES = [
    (
        "rates",
        [
            minibatch(0, 10.0, 0.3),
            minibatch(1, 10.1, 0.2),
            minibatch(0, 10.2, 0.3),  # of another loader, while the first still works
            minibatch(0, 10.6, 0.1),
            minibatch(None, 10.9, 0.1, collate_s=0.0),
            minibatch(0, 10.0, 0.3, rank=1),
            one_pass("prep", [10.1, 10.6], [0.2, 0.1], [0.5, 0.4]),
        ],
    ),
    ("fetch", [one_pass("drain", [20.0], [0.5], [0.5]), one_pass("fetch", [], [], [])]),
]


def check_format(trace):
    """What the format asks of a file in the object format with complete and metadata events."""
    assert isinstance(trace["traceEvents"], list) and trace["displayTimeUnit"] in ("ms", "ns")
    tracks = {}
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str) and event["ph"] in ("X", "M")
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            continue
        assert isinstance(event["cat"], str)
        assert event["ts"] >= 0 and event["dur"] >= 0
        tracks.setdefault((event["pid"], event["tid"]), []).append(event)
    named = [
        (event["pid"], event["tid"])
        for event in trace["traceEvents"]
        if event["name"] == "thread_name"
    ]
    assert len(named) == len(set(named)) and tracks.keys() <= set(named)
    for events in tracks.values():  # each event lies within one before it, or after it
        open_ends = []
        for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
            while open_ends and open_ends[-1] <= event["ts"] + 1e-3:
                open_ends.pop()
            end = event["ts"] + event["dur"]
            assert not open_ends or end <= open_ends[-1] + 1e-3, event
            open_ends.append(end)
    return tracks


def names(trace):
    return {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in trace["traceEvents"]
        if event["name"] == "thread_name"
    }


def test_every_track_is_named_and_its_events_nest(result):
    trace = json.loads(json.dumps(chrome.document(TIMELINES, result)))
    tracks = check_format(trace)

    words = names(trace)
    assert sorted(words[track] for track in tracks if track[0] == 1) == [
        "phases",
        "samples in the training process",
        "training loop",
        "worker 0",
        "worker 0 of rank 1",
        "worker 0, another loader",
        "worker 1",
    ]
    assert trace["otherData"]["emulated"] != "no"


def test_waits_and_steps_are_where_they_were(result):
    trace = chrome.document(TIMELINES, result)
    loop = [e for e in trace["traceEvents"] if (e["pid"], e["tid"]) == (1, chrome.LOOP)]
    spans = [(e["name"], round(e["ts"] / 1e3), round(e["dur"] / 1e3)) for e in loop if "ts" in e]

    assert spans == [("wait", 100, 200), ("step", 300, 300), ("wait", 600, 100), ("step", 700, 300)]
    # Nobody trains while the loader is drained, and a pass without minibatches has no span.
    other = [e for e in trace["traceEvents"] if e["pid"] == 2 and e["ph"] == "X"]
    assert [e["name"] for e in other] == ["drain 0", "wait"]


def test_what_a_worker_did_is_told_with_its_costs(result):
    trace = chrome.document(TIMELINES, result)
    track = next(track for track, words in names(trace).items() if words == "worker 1")
    spans = [e for e in trace["traceEvents"] if (e["pid"], e["tid"]) == track and e["ph"] == "X"]

    whole, samples, collate = spans
    assert [e["name"] for e in spans] == ["minibatch", "fetch and prep", "collate"]
    assert whole["dur"] == pytest.approx(samples["dur"] + collate["dur"])
    assert whole["args"]["cpu_ms"] == pytest.approx(100)
    assert whole["args"]["else_ms"] == pytest.approx(99)
    for first, second in pairwise(spans[1:]):
        assert first["ts"] + first["dur"] <= second["ts"] + 1e-3


def test_a_trace_of_nothing_is_a_trace(result, tmp_path):
    chrome.write([], result, tmp_path / "t.json")

    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"] == []
