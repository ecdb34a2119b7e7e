"""coordl.JobGroup: a group as an argument, around what starts jobs, and what it says of itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from group_jobs import PICTURES, SEED, Job, batches_of, epochs_of, loader, prepared
from torch.utils.data import DistributedSampler

import coordl
from coordl.staging.job_group import staging_bytes

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def named() -> tuple[str | None, str | None]:
    return os.environ.get("COORDL_GROUP"), os.environ.get("COORDL_STAGING")


def test_it_names_the_group_and_its_memory(folder: Path) -> None:
    group = coordl.JobGroup("sweep", staging="1MiB")
    one, other = loader(folder, 4, group=group), loader(folder, 5, group="sweep")
    assert (one.group, one.staging) == ("sweep", "1MiB")
    epochs_of(one, 2), epochs_of(other, 2)
    assert prepared(one.stats()) + prepared(other.stats()) == 2 * PICTURES
    assert loader(folder, 4, group=group, staging="3MiB").staging == "3MiB"
    with pytest.raises(ValueError, match="staging='10%': give bytes"):
        coordl.JobGroup("sweep", staging="10%")


def test_what_begins_within_is_in_it(folder: Path) -> None:
    says = "from os import environ as e; print(e['COORDL_GROUP'], e['COORDL_STAGING'])"
    with coordl.JobGroup("outer", staging=1 << 20) as outer, outer, coordl.JobGroup("inner"):
        told = subprocess.run([sys.executable, "-c", says], capture_output=True, check=True)
        assert told.stdout == b"inner 1048576\n"
        assert outer.environment() == {"COORDL_GROUP": "outer", "COORDL_STAGING": "1048576"}
    assert named() == (None, None)
    with pytest.raises(KeyError):
        with outer:
            assert named() == ("outer", "1048576")
            raise KeyError
    assert named() == (None, None)


def test_jobs_begun_within_share_in_its_memory(folder: Path) -> None:
    with coordl.JobGroup("sweep", staging="1MiB"):
        one = loader(folder, 4, group=None)
        assert len(batches_of(one)) == 6
        job = Job(lambda: (batches_of(two := loader(folder, 4, group=None)), prepared(two.stats())))
    got, made = job.result()
    assert (len(got), made) == (6, 0) and job.end() == 0
    group = one.stats()["group"]
    assert group["slots"] * group["slot_bytes"] <= 1 << 20


def test_status_is_of_its_own_rings_alone(folder: Path) -> None:
    group = coordl.JobGroup("sweep")
    assert group.status() == []
    one, another = loader(folder, 4, group=group), loader(folder, 4, group="sweep.other")
    data = one.dataset
    rank = coordl.DataLoader(
        data, 4, sampler=DistributedSampler(data, 2, 1), seed=SEED, group=group
    )
    whole_script = loader(folder, 4, group=None)
    with group:
        for each in (one, another, rank, whole_script):
            batches_of(each)
    names = [ring["name"] for ring in group.status()]
    assert names[:1] == ["sweep"] and names[-1] == "sweep.rank-1-of-2" and len(names) == 3
    first = group.status()[0]
    assert first["members"][0]["prepared"] == PICTURES and first["agreed"]["seed"] == SEED


def test_it_is_a_value() -> None:
    group = coordl.JobGroup("sweep", staging="1MiB")
    assert pickle.loads(pickle.dumps(group)) == group == coordl.JobGroup("sweep", "1MiB")
    assert len({group, coordl.JobGroup("sweep", "1MiB")}) == 1


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".hidden", "n" * 81, 5])
def test_a_name_that_is_none_is_told_at_once(name: Any) -> None:
    with pytest.raises(ValueError, match="bad group name"):
        coordl.JobGroup(name)
    with pytest.raises(ValueError, match="bad group name"):
        coordl.DataLoader([1, 2], group=name)


def test_a_bad_size_in_the_environment_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COORDL_STAGING", "nonsense")
    with pytest.raises(ValueError, match="COORDL_STAGING='nonsense'"):
        staging_bytes(None)
