"""A few steps seen from close: what the training loop and each worker did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dsanalyzer.report.chrome import Timeline, lanes_of, words_of
from dsanalyzer.report.document import Phase, Span, What

STEPS = 12  # from the middle of the last pass of a phase
LOOP = "training loop"
PHASES: tuple[Phase, ...] = ("prep", "fetch")


def spans(timelines: Sequence[tuple[str, Timeline]]) -> list[Span]:
    """Those of a few steps of the last prep and the last fetch pass, as far as workers were seen.

    `timelines` are Measured.timelines. Times in seconds from the first of the steps.
    """
    found: list[Span] = []
    for phase in PHASES:
        for _, timeline in timelines:
            passes = [one for one in timeline if one["op"] == "pass" and one["phase"] == phase]
            if passes and len(passes[-1]["at_s"]) > 1:
                found += _spans(phase, passes[-1], timeline)
    return found


def _spans(phase: Phase, one: dict[str, Any], timeline: Timeline) -> Iterator[Span]:
    at_s, waits_s = one["at_s"], one["waits_s"]
    first = max(0, (len(at_s) - STEPS) // 2)
    last = min(len(at_s) - 1, first + STEPS)
    begin_s, end_s = at_s[first], at_s[last]

    def span(track: str, what: What, at: float, until: float) -> Iterator[Span]:
        at, until = max(at, begin_s), min(until, end_s)
        if until > at:
            yield {
                "phase": phase,
                "track": track,
                "what": what,
                "begin_s": at - begin_s,
                "lasts_s": until - at,
            }

    for number in range(first, last):
        given = at_s[number] + waits_s[number]
        yield from span(LOOP, "wait", at_s[number], given)
        yield from span(LOOP, "step", given, at_s[number + 1])
    lanes = lanes_of([one for one in timeline if one["op"] == "loaded"])
    for lane in sorted(lanes):
        for loaded in lanes[lane]:
            at, until = loaded["at_s"], loaded["at_s"] + loaded["wall_s"]
            collate = loaded["collate_at_s"] if loaded["collate_s"] else until
            yield from span(words_of(lane), "samples", at, collate)
            yield from span(words_of(lane), "collate", collate, until)
