from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coordl.cli import app
from coordl.doctor import Finding
from coordl.fetch.cache import FORMS, MinIOCache, cache_name


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_status_lists_live_arenas_in_80_columns() -> None:
    with MinIOCache("2MiB", name="t-status") as cache:
        cache.admit((1, 1), bytes(2**19))
        result = run("status")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [
        ["cache", "budget", "used", "items", "users"],
        ["t-status", "2", "MiB", "512", "KiB", "25", "%", "1", "1"],
        ["original", "512", "KiB", "1"],
    ]


def test_status_of_large_caches_of_every_form_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = cache_name("/data/pictures")  # as the loaders name them
    forms = {f"{form}_items": 123_456_789 for form in FORMS}
    forms |= {f"{form}_bytes": 999 << 30 for form in FORMS}
    arena = {
        "name": name,
        "readable": True,
        "users": 1024,
        "items": 370_370_367,
        "persist": 1,
        **forms,
    }
    arena |= {"budget_bytes": 3000 << 30, "used_bytes": 2997 << 30}
    monkeypatch.setattr("coordl.cli._native.list_arenas", lambda kept_in: [arena])
    result = run("status")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == ["cache", name, *FORMS]
    assert all("123,456,789" in line and "999 GiB" in line for line in lines[2:])


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


def test_a_kept_cache_is_listed_until_it_is_cleared() -> None:
    with MinIOCache("2MiB", name="t-kept", persist=True) as cache:
        cache.admit((1, 1), bytes(2**19))
        assert "25 %      1  1, kept" in run("status").stdout
    listed = run("status")
    assert "25 %      1  0, kept" in listed.stdout and "Reaped" not in listed.stdout
    assert max(map(len, listed.stdout.splitlines())) <= 80
    assert run("clear").stdout == "Cleared t-kept.\n"
    assert "No caches of this user" in run("status").stdout


def test_verify_prints_items_bytes_and_faults() -> None:
    with MinIOCache("2MiB", name="t-verify") as cache, MinIOCache(1000, name="t-empty"):
        cache.admit((1, 1), bytes(2**19))
        result = run("verify")
        assert result.exit_code == 0
        assert "t-verify      1  512 KiB       0" in result.stdout
        assert "t-empty       0      0 B       0" in result.stdout
        assert cache.stats()["users"] == 1
        only = json.loads(run("verify", "t-verify", "--format", "json").stdout)
        assert only["arenas"] == [{"name": "t-verify", "items": 1, "bytes": 2**19, "faults": []}]


def test_verify_of_a_damaged_item_is_status_1(shm_dir: Path) -> None:
    with MinIOCache("2MiB", name="t-damaged") as cache:
        cache.admit((1, 1), b"sensitive bytes" * 20)
        with (shm_dir / f"coordl.{os.geteuid()}.t-damaged").open("r+b") as arena:
            arena.seek(arena.read(2**20).index(b"sensitive"))
            arena.write(b"S")
        result = run("verify")
    assert result.exit_code == 1
    assert "t-damaged: log offset 0: checksum does not match the bytes" in result.stdout


def test_verify_of_an_unknown_cache_is_status_2() -> None:
    result = run("verify", "t-unknown")
    assert result.exit_code == 2 and "no arena t-unknown" in result.stderr and not result.stdout
    assert run("verify").stdout == "Nothing to verify.\n"


def test_caches_on_a_disk_are_listed_verified_and_cleared_where_they_are(tmp_path: Path) -> None:
    ssd = str(tmp_path / "ssd")
    with MinIOCache(0, name="t-disk", ssd=ssd, ssd_budget="2MiB", expected_items=10) as cache:
        assert cache.admit((1, 2), bytes(1024))
        assert "t-disk" not in run("status").stdout
        assert run("clear", "--ssd", ssd).exit_code == 2  # in use
    (arena,) = json.loads(run("status", "--ssd", ssd, "--format", "json").stdout)["arenas"]
    assert (arena["name"], arena["items"], arena["users"]) == ("t-disk", 1, 0)
    assert "kept" in run("status", "--ssd", ssd).stdout
    verified = run("verify", "--ssd", ssd).stdout.splitlines()
    assert verified[1].split() == ["t-disk", "1", "1", "KiB", "0"]
    assert run("clear", "t-disk", "--ssd", ssd).stdout == "Cleared t-disk.\n"
    assert os.listdir(ssd) == []
    assert "No caches of this user" in run("status", "--ssd", ssd).stdout


def test_a_directory_that_is_not_there_is_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a long path would be broken into lines
    result = run("verify", "--ssd", "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr


def test_clear_refuses_a_cache_in_use_unless_forced() -> None:
    with MinIOCache(1000, name="t-clear") as cache:
        cache.admit((1, 1), b"x")
        refused = run("clear", "t-clear")
        assert refused.exit_code == 2
        assert "in use by 1 process" in refused.stderr
        assert refused.stderr.endswith("is free when they end\n")  # no text of the errno after it
        forced = run("clear", "t-clear", "--force")
        assert (forced.exit_code, forced.stdout) == (0, "Cleared t-clear.\n")
        assert cache.get((1, 1)) == b"x"


def test_clear_of_an_unknown_cache_is_status_2() -> None:
    result = run("clear", "t-unknown")
    assert result.exit_code == 2
    assert "no arena t-unknown" in result.stderr
    assert "No such file" not in result.stderr


def test_clear_with_nothing_there_is_fine() -> None:
    assert run("clear").stdout == "Nothing to clear.\n"


@pytest.mark.parametrize(
    "fact", ["shared memory", "cgroup", "cores", "open files", "huge pages", "torch"]
)
def test_doctor_states_the_facts(fact: str) -> None:
    result = run("doctor")
    assert result.exit_code == 0 and fact in result.stdout


def test_doctor_in_json_has_name_value_and_advice() -> None:
    findings = json.loads(run("doctor", "--format", "json").stdout)["findings"]
    assert all(set(finding) == {"name", "value", "advice", "commands"} for finding in findings)


def test_doctor_prints_commands_in_one_line_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = "echo advise > /sys/kernel/mm/transparent_hugepage/" + "deep/" * 12 + "enabled"
    finding = Finding("huge pages", "never", "a sentence " * 12 + "about:", (command,))
    monkeypatch.setattr("coordl.cli.examine", lambda: [finding])
    lines = run("doctor").stdout.splitlines()
    assert f"    {command}" in lines
    assert max(len(line) for line in lines if command not in line) <= 80


@pytest.mark.parametrize("command", ["clear", "verify"])
def test_of_an_unknown_name_one_is_told_which_there_are(command: str, tmp_path: Path) -> None:
    none = run(command, "t-wrong").stderr
    assert "no arena t-wrong" in none and "nor any other" in none and "--ssd" in none
    ssd = str(tmp_path / "ssd")
    with (
        MinIOCache(1000, name="t-one"),
        MinIOCache(1000, name="t-two"),
        MinIOCache(0, name="t-disk", ssd=ssd, ssd_budget="2MiB", expected_items=10),
    ):
        told, on_disk = run(command, "t-wrong"), run(command, "t-wrong", "--ssd", ssd)
    assert told.exit_code == on_disk.exit_code == 2
    there = told.stderr.split("There are: ")[1].split(". ")[0]
    assert sorted(there.split(", ")) == ["t-one", "t-two"]
    assert "There are: t-disk. " in on_disk.stderr


@pytest.mark.parametrize("command", [(), ("status",), ("clear",), ("unpack",)])
def test_help_shows_flags_without_a_type(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(*command, "--help").stdout
    assert "--help" in shown and "bool" not in shown


@pytest.mark.parametrize(
    "command", ["status", "clear", "verify", "doctor", "rates", "pack", "unpack"]
)
def test_help_has_examples_in_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f" coordl {command}" in result.stdout.split("Example")[1]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_version_is_the_distributions() -> None:
    result = run("--version")
    expected = metadata.version("data-stall-toolkit")
    assert (result.exit_code, result.stdout) == (0, f"coordl {expected}\n")


def test_a_value_that_is_none_of_the_choices_is_told_without_jargon() -> None:
    for arguments in (["status", "--format", "yaml"], ["pack", "a", "b", "--form", "auto"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert f"'{arguments[-1]}' is not one of" in result.stderr
        assert "Value error" not in result.stderr


def test_an_unknown_command_is_status_2() -> None:
    assert run("bogus").exit_code == 2


def test_an_arena_with_other_permissions_is_listed_and_can_be_cleared(shm_dir: Path) -> None:
    with MinIOCache("2MiB", name="t-mode", persist=True):
        pass
    (file,) = [path for path in shm_dir.iterdir() if path.suffix != ".lock"]
    file.chmod(0o640)
    assert "cannot be read" in run("status").stdout
    assert run("clear").stdout == "Cleared t-mode.\n"
    assert list(shm_dir.iterdir()) == []
