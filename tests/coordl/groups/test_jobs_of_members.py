"""Worker processes are counted with the job that started them."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from coordl.staging.jobs import Shared, job_of, members_by_job


def member(pid: int, prepared: int = 0, staged: int = 0) -> dict[str, Any]:
    return {"pid": pid, "prepared": prepared, "alone": 0, "staged": staged}


def test_a_process_is_its_own_jobs_or_of_the_one_that_started_it() -> None:
    inner = "echo $$; read _"
    with subprocess.Popen(
        ["sh", "-c", f"sh -c '{inner}'; true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdout is not None and shell.stdin is not None
        grandchild = int(shell.stdout.readline())
        assert grandchild != shell.pid
        assert job_of(grandchild, {shell.pid}) == shell.pid
        assert job_of(grandchild, {os.getpid(), 1 << 30}) == os.getpid()
        assert job_of(shell.pid, {shell.pid}) == shell.pid
        assert job_of(shell.pid, {grandchild}) is None
        groups = members_by_job([member(grandchild, 1, 2), member(shell.pid), member(1 << 30, 3)])
        assert [[each["pid"] for each in group] for group in groups] == [
            [shell.pid, grandchild],
            [1 << 30],
        ]
        shell.stdin.write("\n")
    assert job_of(grandchild, {os.getpid()}) is None  # it is gone


def test_what_is_saved_is_the_share_that_others_prepared() -> None:
    assert Shared.of([member(1, 10, 20), member(2, 20, 10)]) == Shared(30, 0, 30)
    assert Shared.of([member(1, 10, 30)]).saved == 0.75
    assert Shared.of([]).saved is None
