"""CPU load beside ingestion: as much as asked for, and none that outlives who asked."""

import os
import signal
import subprocess
import sys
import time

import psutil

from dsanalyzer.measure.load import Load

START = """
import time
from dsanalyzer.measure.load import Load
load = Load(0.2, 2)
print(*(process.pid for process in load._processes), flush=True)
time.sleep(60)
"""


def test_it_computes_no_more_than_it_was_asked_to_and_ends():
    load = Load(0.4, 2)
    children = [psutil.Process(process.pid) for process in load._processes]
    began = time.monotonic()
    before = [sum(child.cpu_times()[:2]) for child in children]
    time.sleep(1.0)
    used = sum(sum(child.cpu_times()[:2]) for child in children) - sum(before)

    assert 0.1 < used <= 0.4 * (time.monotonic() - began) + 0.1  # of cores that others use, too
    assert 0.1 < load.end() < 0.6
    assert not any(child.is_running() for child in children)
    load.end()  # twice is once


def test_it_runs_on_the_jobs_cores():
    core = min(os.sched_getaffinity(0))
    load = Load(0.1, 2, on=[core])
    assert [os.sched_getaffinity(process.pid) for process in load._processes] == [{core}] * 2
    load.end()


def runs(pid):
    """One that nobody has waited for yet is no process any more."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_does_not_outlive_a_tool_that_was_killed():
    tool = subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in tool.stdout.readline().split()]
    assert len(pids) == 2

    os.kill(tool.pid, signal.SIGKILL)
    tool.wait()
    tool.stdout.close()
    patience = time.monotonic() + 10
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < patience
        time.sleep(0.02)
