from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from coordl.cli import app
from coordl.fetch.cache import MinIOCache


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_status_lists_live_arenas_in_80_columns() -> None:
    with MinIOCache("2MiB", name="t-status") as cache:
        cache.admit((1, 1), bytes(2**19))
        result = run("status")
    assert result.exit_code == 0
    assert "t-status   2 MiB  512 KiB  25 %      1     0 %      1" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_status_in_json_is_for_programs() -> None:
    with MinIOCache("2MiB", name="t-json"):
        (arena,) = json.loads(run("status", "--format", "json").stdout)["arenas"]
    assert (arena["name"], arena["budget_bytes"], arena["users"]) == ("t-json", 2**21, 1)


def test_status_reaps_what_a_killed_job_left(
    in_fork: Callable[[Callable[[], object]], int],
) -> None:
    def killed() -> None:
        _kept = MinIOCache(1000, name="t-stale")
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(killed) == -signal.SIGKILL
    assert "Reaped t-stale" in run("status").stdout
    assert "No caches of this user" in run("status").stdout


def test_clear_refuses_a_cache_in_use_unless_forced() -> None:
    with MinIOCache(1000, name="t-clear") as cache:
        cache.admit((1, 1), b"x")
        refused = run("clear", "t-clear")
        assert refused.exit_code == 2
        assert "in use by 1 process" in refused.stderr
        forced = run("clear", "t-clear", "--force")
        assert (forced.exit_code, forced.stdout) == (0, "Cleared t-clear.\n")
        assert cache.get((1, 1)) == b"x"


def test_clear_of_an_unknown_cache_is_status_2() -> None:
    result = run("clear", "t-unknown")
    assert result.exit_code == 2
    assert "no arena t-unknown" in result.stderr


def test_clear_with_nothing_there_is_fine() -> None:
    assert run("clear").stdout == "Nothing to clear.\n"


@pytest.mark.parametrize("fact", ["shared memory", "cgroup", "cores", "open files", "torch"])
def test_doctor_states_the_facts(fact: str) -> None:
    result = run("doctor")
    assert result.exit_code == 0 and fact in result.stdout


def test_doctor_in_json_has_name_value_and_advice() -> None:
    findings = json.loads(run("doctor", "--format", "json").stdout)["findings"]
    assert all(set(finding) == {"name", "value", "advice"} for finding in findings)


@pytest.mark.parametrize("command", ["status", "clear", "doctor"])
def test_help_has_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0 and f"coordl {command}" in result.stdout


def test_an_unknown_command_is_status_2() -> None:
    assert run("bogus").exit_code == 2
