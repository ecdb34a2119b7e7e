"""The only clock. Tests replace `clock` and `sleep`; nothing else reads the time."""

from __future__ import annotations

import time

clock = time.perf_counter
process_clock = time.process_time  # core seconds of this process, its threads included
sleep = time.sleep
