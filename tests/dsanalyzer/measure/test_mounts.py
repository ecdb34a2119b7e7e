"""Kinds of storage, by the kernel's own table; overlays, memory and FUSE where they can be had."""

import io
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from dsanalyzer.measure import mounts, storage
from dsanalyzer.measure.mounts import Mount, mount_of

TABLE = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 21 0:26 / /dev/shm rw - tmpfs tmpfs rw
31 21 0:40 / /data rw - nfs4 server:/data rw
32 31 0:41 / /data/my\\040set rw shared:1 - fuse.sshfs host: rw
33 21 0:42 / /data2 rw - btrfs /dev/vdb rw
34 33 0:43 / /data2 rw - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("path", "mount", "kind"),
    [
        ("/home/a.jpg", Mount("/", "ext4"), (False, False)),
        ("/dev/shm/a.jpg", Mount("/dev/shm", "tmpfs"), (True, False)),
        ("/data/a.jpg", Mount("/data", "nfs4"), (False, True)),
        ("/data/my set/a.jpg", Mount("/data/my set", "fuse.sshfs"), (False, True)),
        ("/data2/a.jpg", Mount("/data2", "overlay"), (False, False)),  # the one on top
        ("/database/a.jpg", Mount("/", "ext4"), (False, False)),
    ],
)
def test_a_file_lies_on_the_innermost_mount(monkeypatch, path, mount, kind):
    monkeypatch.setattr(mounts, "open", lambda _: io.StringIO(TABLE), raising=False)

    found = mount_of(path)
    assert found == mount
    assert (found.in_memory, found.served) == kind


def test_a_link_lies_where_it_points(tmp_path):
    if mount_of("/dev/shm").type != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    (tmp_path / "link").symlink_to("/dev/shm")
    assert mount_of(str(tmp_path / "link")).in_memory


@contextmanager
def mounted(words, place):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no mount may be made here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def files_in(folder, count=8):
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(os.urandom(30_000))
    os.sync()


def test_reads_through_fuse_are_counted_by_what_was_not_in_memory(tmp_path):
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed")
    files_in(tmp_path / "below")
    place = tmp_path / "fuse"
    place.mkdir()
    with mounted(["bindfs", str(tmp_path / "below"), str(place)], place):
        paths = [str(path) for path in place.iterdir()]
        assert mount_of(paths[0]).served
        cold = storage.deliver(paths, 2, 5.0, cold=True)
        assert cold["read_bytes"] == 8 * 32_768  # whole pages
        assert "behind a server or daemon" in mounts.remarks(paths[0])[0]


def test_files_below_an_overlay_are_evicted_and_counted(tmp_path):
    files_in(tmp_path / "lower")
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    place = tmp_path / "merged"
    layers = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    with mounted(["mount", "-t", "overlay", "overlay", "-o", layers, str(place)], place):
        paths = [str(path) for path in place.iterdir()]
        assert not mount_of(paths[0]).served
        cold = storage.deliver(paths, 2, 5.0, cold=True)
        assert cold["read_bytes"] >= 8 * 32_768
        assert mounts.remarks(paths[0]) == []
