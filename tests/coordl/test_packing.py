"""coordl pack: the same result whatever happened on the way, and nothing of others touched."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordl import ItemError, PackedDataError, _native, packing
from coordl.fetch import shard_writer
from coordl.fetch.shards import FORMS, STATE, open_packed
from coordl.packing import Order, Outcome, list_source, pack

SHARD_BYTES = 256 << 10  # a few pictures each


@pytest.fixture(autouse=True)
def no_step_hook() -> Iterator[None]:
    yield
    shard_writer.step_hook = None


def packed(root: Path, out: Path, **options: object) -> Outcome:
    return pack(Order(list_source(root), "packed", SHARD_BYTES), out, **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def reference(mixed_folder: Path, tmp_path: Path) -> dict[str, bytes]:
    packed(mixed_folder, tmp_path / "reference")
    return contents(tmp_path / "reference")


@pytest.fixture
def read_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows whose files were read and recoded."""
    rows: list[int] = []
    recoded = packing._recoded

    def noting(order: Order, row: int) -> tuple[bytes, str | None]:
        rows.append(row)
        return recoded(order, row)

    monkeypatch.setattr(packing, "_recoded", noting)
    return rows


def killed_at(step: str, count: int, work: Callable[[], object]) -> int:
    """Exit code of a child that does `work` and gets SIGKILL the count-th time it is at `step`."""
    pid = os.fork()
    if pid == 0:
        left = count

        def hook(reached: str) -> None:
            nonlocal left
            left -= reached == step
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        shard_writer.step_hook = hook
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_every_file_is_there_in_the_image_folders_order(mixed_folder: Path, tmp_path: Path) -> None:
    outcome = packed(mixed_folder, tmp_path / "out", jobs=3)
    index, source = outcome.data.index, list_source(mixed_folder)
    assert index.names == source.names and index.classes == ["a", "b", "zü"]
    assert index.targets.tolist() == source.targets
    assert index.source_sizes.tolist() == source.sizes.tolist()
    assert index.source_mtimes_ns.tolist() == source.mtimes_ns.tolist()
    assert len(index.shard_sizes) > 2 and index.shard_sizes.max() <= SHARD_BYTES
    assert outcome.data.manifest["items_by_form"] == {"original": 4, "indexed": 0, "packed": 14}
    names = {os.path.basename(name) for name in outcome.stored_as_they_are()}
    assert names == {"rgb.jpg", "other.png", "cmyk.jpg", "cut.jpg"}
    assert not outcome.already and outcome.resumed_items == 0
    assert FORMS[index.forms[index.names.index("b/other.png")]] == "original"


def test_threads_and_repetition_change_nothing(
    mixed_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    packed(mixed_folder, tmp_path / "out", jobs=4)
    assert contents(tmp_path / "out") == reference


def test_the_place_of_the_source_does_not_matter(
    mixed_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    shutil.copytree(mixed_folder, tmp_path / "copy")
    packed(tmp_path / "copy", tmp_path / "out")
    assert contents(tmp_path / "out") == reference


def test_indexed_items_serve_as_well(mixed_folder: Path, tmp_path: Path) -> None:
    outcome = pack(Order(list_source(mixed_folder), "indexed"), tmp_path / "out")
    forms = outcome.data.manifest["items_by_form"]
    assert forms["indexed"] >= 9 and forms["packed"] == 0


def test_an_item_larger_than_a_shard_has_one_of_its_own(mixed_folder: Path, tmp_path: Path) -> None:
    outcome = pack(Order(list_source(mixed_folder), "packed", 64 << 10), tmp_path / "out")
    index = outcome.data.index
    assert index.shard_sizes.max() > 64 << 10
    large = index.lengths > 64 << 10
    assert large.any()
    assert all((index.shards == shard).sum() == 1 for shard in index.shards[large])


# ------------------------------------------------------------------------ killed and resumed

KILLS = [(step, 1) for step in shard_writer.STEPS] + [
    ("shard:begun", 3), ("shard:item", 7), ("shard:renamed", 3), ("part:renamed", 2),
]  # fmt: skip


@pytest.mark.parametrize(("step", "count"), KILLS)
def test_a_pack_killed_at_any_step_goes_on_to_the_same_bytes(
    mixed_folder: Path,
    tmp_path: Path,
    reference: dict[str, bytes],
    read_rows: list[int],
    step: str,
    count: int,
) -> None:
    out = tmp_path / "out"
    assert killed_at(step, count, lambda: packed(mixed_folder, out)) == -signal.SIGKILL
    parts = sorted(out.glob("*.cdp"))
    outcome = packed(mixed_folder, out)
    assert contents(out) == reference
    # What was finished is not read again: everything once the manifest is there.
    finished = len(open_packed(out).index) if outcome.already else outcome.resumed_items
    assert sorted(read_rows) == list(range(finished, 18))
    if step == "part:renamed":
        assert len(parts) == count and outcome.resumed_items > 0


def test_killed_again_and_again_it_still_comes_to_its_end(
    mixed_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    out, kills = tmp_path / "out", 0
    while killed_at("part:renamed", 1, lambda: packed(mixed_folder, out)) == -signal.SIGKILL:
        kills += 1
        assert kills < 30
        if (out / "manifest.json").exists() or not (out / STATE).exists():
            break
    assert kills == sum(name.endswith(".cds") for name in reference)
    packed(mixed_folder, out)
    assert contents(out) == reference


def test_a_finished_shard_that_was_cut_since_is_made_again(
    mixed_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    killed_at("part:renamed", 3, lambda: packed(mixed_folder, out))
    os.truncate(out / "shard-00001.cds", 1000)
    assert packed(mixed_folder, out).resumed_items > 0
    assert contents(out) == reference


def test_a_damaged_part_is_made_again(
    mixed_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    killed_at("part:renamed", 2, lambda: packed(mixed_folder, out))
    (out / "shard-00000.cdp").write_bytes(b"nothing")
    assert packed(mixed_folder, out).resumed_items == 0
    assert contents(out) == reference


def test_a_begun_one_is_not_gone_on_with_from_other_files(
    mixed_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed_at("part:renamed", 1, lambda: packed(mixed_folder, out))
    os.utime(mixed_folder / "b" / "other.png", (1e9, 1e9))
    before = contents(out)
    with pytest.raises(PackedDataError, match="begun from other files or with other options"):
        packed(mixed_folder, out)
    assert contents(out) == before
    assert packed(mixed_folder, out, force=True).resumed_items == 0


@pytest.mark.parametrize("step", ["pack:begun", "shard:item", "manifest:renamed"])
def test_a_forced_anew_killed_leaves_nothing_of_the_old(
    mixed_folder: Path, tmp_path: Path, step: str
) -> None:
    out = tmp_path / "out"
    packed(mixed_folder, out)
    (mixed_folder / "b" / "other.png").unlink()
    shutil.rmtree(mixed_folder / "zü")
    assert killed_at(step, 1, lambda: packed(mixed_folder, out, force=True)) == -signal.SIGKILL
    packed(mixed_folder, out)
    packed(mixed_folder, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


# --------------------------------------------------------------------------- done, or refused


def test_packing_again_from_the_same_files_does_nothing(
    mixed_folder: Path, tmp_path: Path, read_rows: list[int]
) -> None:
    packed(mixed_folder, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    read_rows.clear()
    assert packed(mixed_folder, tmp_path / "out").already
    assert read_rows == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def change(root: Path) -> None:
    (root / "a" / "420.jpg").write_bytes(b"other")


def touch(root: Path) -> None:
    os.utime(root / "a" / "420.jpg", (1e9, 1e9))


def add(root: Path) -> None:
    (root / "a" / "new.jpg").write_bytes(b"new")


def remove(root: Path) -> None:
    (root / "a" / "420.jpg").unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (change, r"1 changed \(e\.g\. a/420\.jpg\)"),
        (touch, r"1 changed \(e\.g\. a/420\.jpg\)"),
        (add, r"1 new \(e\.g\. a/new\.jpg\)"),
        (remove, r"1 gone \(e\.g\. a/420\.jpg\)"),
    ],
)
def test_a_source_that_changed_is_refused_with_what_changed(
    mixed_folder: Path, tmp_path: Path, how: Callable[[Path], None], said: str
) -> None:
    packed(mixed_folder, tmp_path / "out")
    before = contents(tmp_path / "out")
    how(mixed_folder)
    with pytest.raises(PackedDataError, match=said):
        packed(mixed_folder, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    outcome = packed(mixed_folder, tmp_path / "out", force=True)
    assert outcome.data.index.names == list_source(mixed_folder).names


def test_another_source_with_the_same_names_is_refused(mixed_folder: Path, tmp_path: Path) -> None:
    packed(mixed_folder, tmp_path / "out")
    shutil.copytree(mixed_folder, tmp_path / "twin", copy_function=shutil.copyfile)
    with pytest.raises(PackedDataError, match=r"twin is another now: files 18 changed"):
        packed(tmp_path / "twin", tmp_path / "out")


def test_another_form_is_refused(mixed_folder: Path, tmp_path: Path) -> None:
    packed(mixed_folder, tmp_path / "out")
    with pytest.raises(PackedDataError, match="packed already, and with --form packed"):
        pack(Order(list_source(mixed_folder), "indexed", SHARD_BYTES), tmp_path / "out")


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_something_else_is_never_touched(
    mixed_folder: Path, tmp_path: Path, force: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(PackedDataError, match=r"holds other files \(e\.g\. thesis\.tex\)"):
        packed(mixed_folder, out, force=force)
    assert contents(out) == {"thesis.tex": b"years of work"}


def test_a_data_set_inside_its_source_is_refused(mixed_folder: Path) -> None:
    with pytest.raises(PackedDataError, match="where it would be taken for a class"):
        packed(mixed_folder, mixed_folder / "packed")
    assert not (mixed_folder / "packed").exists()


def test_two_at_once_do_not_meet(mixed_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with packing._locked(str(out)):
        with pytest.raises(PackedDataError, match="Another coordl pack is writing"):
            packed(mixed_folder, out)
    packed(mixed_folder, out)


# ------------------------------------------------------------------------------- bad sources


def test_an_empty_class_is_refused_as_image_folder_does(mixed_folder: Path) -> None:
    (mixed_folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No pictures in 1 class folder\(s\).*: empty"):
        list_source(mixed_folder)


def test_a_file_that_may_not_be_read_is_named_and_the_rest_is_kept(
    mixed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel refuses it: chmod says nothing to root."""
    read, bad = _native.read_identified, str(mixed_folder / "b" / "other.png")

    def refusing(path: str) -> tuple[bytes, int, int]:
        if path == bad:
            raise PermissionError(13, "Permission denied", path)
        return read(path)

    monkeypatch.setattr(_native, "read_identified", refusing)
    row = list_source(mixed_folder).names.index("b/other.png")
    said = rf"sample {row}: cannot read .*other\.png: Permission denied\. Give this user read"
    with pytest.raises(PermissionError, match=said) as caught:
        packed(mixed_folder, tmp_path / "out")
    assert isinstance(caught.value, ItemError) and caught.value.index == row
    monkeypatch.undo()
    assert packed(mixed_folder, tmp_path / "out").resumed_items > 0


def test_a_file_that_vanishes_or_changes_meanwhile_is_named(
    mixed_folder: Path, tmp_path: Path
) -> None:
    order = Order(list_source(mixed_folder), "packed", SHARD_BYTES)
    os.utime(mixed_folder / "b" / "other.png", (1e9, 1e9))
    with pytest.raises(ItemError, match=r"other\.png changed since it was listed"):
        pack(order, tmp_path / "out")
    (mixed_folder / "b" / "other.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"sample \d+: cannot read .*other\.png"):
        pack(order, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_link_that_leads_nowhere_is_named(mixed_folder: Path) -> None:
    (mixed_folder / "a" / "000.jpg").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"sample 0: cannot read .*000\.jpg"):
        list_source(mixed_folder)


def test_a_full_disk_leaves_what_is_finished(
    mixed_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    def full(step: str) -> None:
        if step == "shard:written" and list((tmp_path / "out").glob("*.cdp")):
            raise OSError(28, "No space left on device", "shard")

    shard_writer.step_hook = full
    with pytest.raises(OSError, match="No space left"):
        packed(mixed_folder, tmp_path / "out")
    shard_writer.step_hook = None
    assert packed(mixed_folder, tmp_path / "out").resumed_items > 0
    assert contents(tmp_path / "out") == reference
