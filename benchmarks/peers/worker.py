"""A process with one variant: python -m benchmarks.peers.worker CPU

Reads one JSON object per line and answers with one. The first loads, the others compute:

    {"do": "load", "entry": KEY, "paths": [...], "seed": N}   -> settings, versions, facts, ...
    {"do": "round", "number": K}                              -> samples, cpu_s, begin_s, end_s
    {"do": "check", "reference": FILE, "count": N}            -> mean, max: levels from Pillow
    {"do": "stop"}

What it cannot do is answered with {"error": WHY}. begin_s and end_s are of the system's monotonic
clock, so that rounds of two workers compare. The process binds itself to one CPU before it imports
anything that starts threads; libraries' own output goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any, TextIO


class Bench:
    """The variant of this process and its pictures."""

    def __init__(self, entry: str, paths: list[str], seed: int) -> None:
        from .registry import entry as find

        self.entry = find(entry)
        from .variant import Variant, load_pictures

        self.pictures = load_pictures(paths)
        self.seed = seed
        module = importlib.import_module(f"{__package__}.{self.entry.module}")
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        self.variant: Variant = getattr(module, self.entry.factory)(self.pictures)

    def boxes(self, number: int) -> list[Any]:
        """The boxes of a round, the same in every worker."""
        from .boxes import draw

        return [
            draw(self.seed, number, index, picture.width, picture.height)
            for index, picture in enumerate(self.pictures)
        ]

    def describe(self) -> dict[str, Any]:
        """What the driver has to know of the variant."""
        variant = self.variant
        return {
            "clock": variant.clock,
            "same_boxes": variant.same_boxes,
            "antialias": variant.antialias,
            "settings": variant.settings,
            "versions": variant.versions(),
            "facts": variant.facts(),
        }

    def round(self, number: int) -> dict[str, Any]:
        """Prepares every picture once; CPU time of the thread or of the process, wall time."""
        boxes = self.boxes(number)
        clock = time.thread_time if self.variant.clock == "thread" else time.process_time
        begin_s, cpu = time.monotonic(), clock()
        self.variant.round(boxes)
        cpu_s, end_s = clock() - cpu, time.monotonic()
        return {"samples": len(boxes), "cpu_s": cpu_s, "begin_s": begin_s, "end_s": end_s}

    def check(self, reference: str, count: int) -> dict[str, Any]:
        """Mean and largest difference from Pillow's pixels on the boxes of round 0, in levels."""
        import numpy as np

        from .variant import levels

        boxes = self.boxes(0)[:count]
        total, most = 0.0, 0
        for result, wanted in zip(self.variant.results(boxes), np.load(reference), strict=True):
            difference = np.abs(levels(result).astype(np.int16) - wanted)
            total, most = total + float(difference.mean()), max(most, int(difference.max()))
        return {"mean": total / count, "max": most}


def answer(bench: Bench | None, request: dict[str, Any]) -> tuple[Bench | None, dict[str, Any]]:
    """Carries out one request; every failure is an answer too."""
    from .variant import LeftOut

    do = request.pop("do")
    try:
        if do == "load":
            bench = Bench(**request)
            return bench, bench.describe()
        if bench is None or do not in ("round", "check"):
            raise ValueError(f"no such request, or nothing loaded: {do}")
        return bench, getattr(bench, do)(**request)
    except LeftOut as reason:
        return bench, {"error": str(reason).splitlines()[0]}
    except Exception as error:
        return bench, {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def serve(requests: TextIO, answers: TextIO) -> None:
    """Until "stop" or the end of the requests."""
    bench = None
    for line in requests:
        request = json.loads(line)
        if request["do"] == "stop":
            return
        bench, reply = answer(bench, request)
        print(json.dumps(reply), file=answers, flush=True)


def main() -> None:
    """Binds to the CPU given, keeps stdout for answers alone, serves."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)
    answers.flush()
    os._exit(0)  # some libraries' threads outlast an orderly exit


if __name__ == "__main__":
    main()
