"""Usable cores: affinity, quotas of both control group versions and all above, ranks; "auto"."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.data

import coordl
from coordl import transforms as T
from coordl.cgroups import cpu_quota, memory_limit
from coordl.cores import auto_workers, measure_cores, usable_cores

V2 = "30 23 0:26 {base} {place} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "31 23 0:27 {base} {place} rw,nosuid - cgroup cgroup rw,cpu,cpuacct"
OTHER = "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


class Machine:
    """A file system with control groups, as a process sees it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process = root / "proc"
        self.process.mkdir()

    def sees(self, groups: str, *mounts: str) -> None:
        (self.process / "cgroup").write_text(groups)
        (self.process / "mountinfo").write_text("\n".join(mounts))

    def grants(self, folder: str, **files: str) -> None:
        home = self.root / folder.lstrip("/")
        home.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (home / name.replace("_", ".", 1)).write_text(text)

    def quota(self) -> float | None:
        return cpu_quota(str(self.process), str(self.root))

    def memory(self) -> int | None:
        return memory_limit(str(self.process), str(self.root))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_tightest_of_all_groups_above_binds(machine: Machine) -> None:
    machine.sees("0::/jobs/mine\n", V2.format(base="/", place="/sys/fs/cgroup"))
    machine.grants("/sys/fs/cgroup")
    machine.grants("/sys/fs/cgroup/jobs", cpu_max="150000 100000\n")
    machine.grants("/sys/fs/cgroup/jobs/mine", cpu_max="max 100000\n")
    assert machine.quota() == 1.5
    machine.grants("/sys/fs/cgroup/jobs/mine", cpu_max="50000 100000\n")
    assert machine.quota() == 0.5


def test_groups_above_what_is_mounted_are_not_looked_for(machine: Machine) -> None:
    machine.sees("0::/mine\n", V2.format(base="/", place="/sys/fs/cgroup"))
    machine.grants("/sys/fs", cpu_max="1000 100000\n")
    machine.grants("/sys/fs/cgroup/mine", cpu_max="max 100000\n")
    assert machine.quota() is None


def test_version_one_is_read_too(machine: Machine) -> None:
    machine.sees(
        "5:memory:/m\n4:cpu,cpuacct:/a/b\n0::/\n",
        OTHER,
        V1.format(base="/", place="/sys/fs/cgroup/cpu,cpuacct"),
    )
    place = "/sys/fs/cgroup/cpu,cpuacct"
    machine.grants(f"{place}/a/b", cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    assert machine.quota() is None
    machine.grants(f"{place}/a", cpu_cfs_quota_us="250000\n", cpu_cfs_period_us="100000\n")
    assert machine.quota() == 2.5


def test_a_container_sees_its_own_group_as_the_mounts_root(machine: Machine) -> None:
    machine.sees(
        "4:cpu:/docker/abc/inner\n", V1.format(base="/docker/abc", place="/sys/fs/cgroup/cpu")
    )
    group = {"cpu_cfs_quota_us": "300000", "cpu_cfs_period_us": "100000"}
    machine.grants("/sys/fs/cgroup/cpu/inner", **group)
    assert machine.quota() == 3
    machine.sees("4:cpu:/../other\n", V1.format(base="/", place="/sys/fs/cgroup/cpu"))
    machine.grants("/sys/fs/cgroup/cpu", **{**group, "cpu_cfs_quota_us": "100000"})
    assert machine.quota() == 1


@pytest.mark.parametrize("text", ["", "nonsense", "0 0", "100000 0", "max"])
def test_what_says_nothing_grants_everything(machine: Machine, text: str) -> None:
    machine.sees("0::/\n", V2.format(base="/", place="/with\\040space"))
    machine.grants("/with space", cpu_max=text)
    assert machine.quota() is None


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(str(tmp_path / "absent")) is None


def test_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)))
    for quota, ranks, cores in (
        (None, "", 12),
        (None, "4", 3),
        (None, "100", 1),
        (None, "0", 12),
        (None, "x", 12),
        (7.9, "2", 3),
        (0.3, "", 1),
        (64.0, "", 12),
    ):
        monkeypatch.setattr("coordl.cores.cpu_quota", lambda quota=quota: quota)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert usable_cores() == cores


def test_a_measurement_lies_between_none_and_all() -> None:
    assert measure_cores(1) == 1
    assert 0 < measure_cores(3) <= 3


def test_workers_are_the_free_cores_and_threads_the_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordl.cores.usable_cores", lambda: 8)
    for free, workers in ((7.6, 8), (3.2, 3), (0.1, 1)):
        monkeypatch.setattr("coordl.cores.measure_cores", lambda cores, free=free: free)
        assert auto_workers(native=False) == (workers, f"{workers} free of 8 usable core(s)")
        assert auto_workers(native=True) == (8, "8 usable core(s)")


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordl.delivery.loader.usable_cores", lambda: 1)
    monkeypatch.setattr("coordl.cores.usable_cores", lambda: 3)
    monkeypatch.setattr("coordl.cores.measure_cores", lambda cores: 2.0)


def test_auto_is_a_number_by_the_time_the_loader_is_made(
    three_cores: None, tmp_path: Path, photos: list[Path]
) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "one.jpg").write_bytes(photos[0].read_bytes())
    pictures = coordl.ImageFolder(tmp_path, T.Compose([T.CenterCrop(8), T.PILToTensor()]))
    for data, workers, why in ((pictures, 3, "3 usable core(s)"), ([1, 2], 2, "2 free of 3")):
        loader: Any = coordl.DataLoader(data, num_workers="auto", persistent_workers=True)
        assert loader.num_workers == workers and loader.prefetch_factor == 2
        assert f'(num_workers="auto": {why}' in loader.plan()
        assert len(list(loader)) == len(data)


class Nested(torch.utils.data.Dataset):
    """A data set that has a loader of its own."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> list[int]:
        return [int(one) for one in coordl.DataLoader([1, 2], num_workers="auto")]


def test_a_worker_process_starts_none_of_its_own() -> None:
    (batch,) = coordl.DataLoader(Nested(), num_workers=1)
    assert [int(one) for one in batch] == [1, 2]


def test_other_words_are_refused_as_torch_refuses_them() -> None:
    with pytest.raises(TypeError):
        coordl.DataLoader([1], num_workers="automatic")


def test_memory_is_limited_by_the_tightest_group_of_either_version(machine: Machine) -> None:
    machine.sees("0::/jobs/mine\n", V2.format(base="/", place="/sys/fs/cgroup"))
    machine.grants("/sys/fs/cgroup/jobs", memory_max="max\n")
    assert machine.memory() is None
    machine.grants("/sys/fs/cgroup/jobs/mine", memory_max="4000000\n")
    assert machine.memory() == 4_000_000

    machine.sees("9:memory:/mine\n", OTHER)
    machine.grants("/sys/fs/cgroup/memory", memory_limit_in_bytes="9223372036854771712\n")
    assert machine.memory() is None  # which is how version 1 says that there is none
    machine.grants("/sys/fs/cgroup/memory/mine", memory_limit_in_bytes="8000000\n")
    assert machine.memory() == 8_000_000
