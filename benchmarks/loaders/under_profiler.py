"""A script under torch.profiler, for who does not edit it: under_profiler.py OUT SCRIPT ARGUMENT...

Writes {"wall_s", "wait_s"} to OUT: seconds from the first wait for a minibatch to the end of the
script, and those inside the DataLoader's record of `next()`, which is all the profiler tells of it.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def main(out: str, script: str, *arguments: str) -> None:
    sys.argv = [script, *arguments]
    begin = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        runpy.run_path(script, run_name="__main__")
    wall_s = time.perf_counter() - begin
    waits = [
        each for each in profiler.key_averages() if each.key.startswith("enumerate(DataLoader)#")
    ]
    wait_s = sum(each.cpu_time_total for each in waits) / 1e6
    Path(out).write_text(json.dumps({"wall_s": wall_s, "wait_s": wait_s}))


if __name__ == "__main__":
    main(*sys.argv[1:])
