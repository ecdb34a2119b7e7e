"""The only clock. Tests replace `clock` and `sleep`; nothing else reads the time."""

from __future__ import annotations

import time

clock = time.perf_counter
sleep = time.sleep
