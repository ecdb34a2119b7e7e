from __future__ import annotations

import gc
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from coordl import _native
from coordl.errors import CacheError
from coordl.fetch.cache import MinIOCache, cache_name


def item(i: int) -> bytes:
    return (b"item %d " % i) * (50 + i % 40)


def test_full_cache_keeps_every_admitted_item() -> None:
    with MinIOCache(20_000, name="t-full") as cache:
        admitted = [i for i in range(100) if cache.admit((i, i), item(i))]
        for i in range(100, 200):
            cache.admit((i, i), item(i))
        assert 0 < len(admitted) < 100
        for i in admitted:
            assert cache.get((i, i)) == item(i)


def test_budget_is_never_exceeded_and_filled_as_far_as_items_allow() -> None:
    with MinIOCache(20_000, name="t-budget") as cache:
        sizes = {i: len(item(i)) for i in range(100)}
        used = sum(sizes[i] for i in sizes if cache.admit((i, 0), item(i)))
        assert cache.stats()["used_bytes"] == used <= 20_000
        assert 20_000 - used < min(sizes.values())


def test_a_smaller_item_still_fits_after_a_larger_was_refused() -> None:
    with MinIOCache(1000, name="t-fits") as cache:
        assert cache.admit((1, 1), bytes(900))
        assert not cache.admit((2, 2), bytes(101))
        assert cache.admit((3, 3), bytes(100))
        assert cache.stats()["used_bytes"] == 1000


def test_an_item_admitted_twice_is_held_once() -> None:
    with MinIOCache(1000, name="t-twice") as cache:
        assert cache.admit((1, 1), b"first")
        assert cache.admit((1, 1), b"first")
        stats = cache.stats()
        assert (stats["items"], stats["used_bytes"]) == (1, 5)


def test_unknown_keys_are_misses_whatever_half_differs() -> None:
    with MinIOCache(1000, name="t-miss") as cache:
        cache.admit((1, 2), b"x")
        assert cache.get((1, 3)) is None
        assert cache.get((2, 1)) is None
        assert cache.get((1, 2)) == b"x"


def test_keys_are_rows_of_uint64_too() -> None:
    keys = np.array([[2**64 - 1, 0]], dtype=np.uint64)
    with MinIOCache(1000, name="t-rows") as cache:
        assert cache.admit(keys[0], b"x")
        assert cache.get(keys[0]) == b"x"


def test_an_empty_item_is_held() -> None:
    with MinIOCache(1000, name="t-empty") as cache:
        assert cache.admit((1, 1), b"")
        assert cache.get((1, 1)) == b""


def test_views_are_read_only_and_copy_nothing() -> None:
    with MinIOCache(1000, name="t-views") as cache:
        cache.admit((1, 1), b"abc")
        view = cache.get((1, 1))
        assert view is not None and view.readonly
        again = cache.get((1, 1))
        address = [np.frombuffer(v, np.uint8).ctypes.data for v in (view, again)]
        assert address[0] == address[1]
        with pytest.raises(TypeError):
            view[0] = 1


def test_a_view_outlives_the_cache_it_came_from() -> None:
    cache = MinIOCache(1000, name="t-outlive")
    cache.admit((1, 1), b"still here")
    view = cache.get((1, 1))
    cache.close()
    del cache
    gc.collect()
    assert view == b"still here"


def test_a_closed_cache_misses_and_refuses(shm_dir: Path) -> None:
    cache = MinIOCache(1000, name="t-closed")
    cache.admit((1, 1), b"x")
    cache.close()
    cache.close()
    assert cache.get((1, 1)) is None
    assert not cache.admit((2, 2), b"x")
    assert list(shm_dir.iterdir()) == []


def test_two_caches_of_one_name_are_one_arena(shm_dir: Path) -> None:
    first = MinIOCache(1000, name="t-one")
    second = MinIOCache(1000, name="t-one")
    first.admit((1, 1), b"x")
    first.close()
    assert second.get((1, 1)) == b"x"
    assert second.stats()["users"] == 1
    second.close()
    assert list(shm_dir.iterdir()) == []


def test_a_pickled_cache_opens_the_same_arena() -> None:
    with MinIOCache(1000, name="t-pickle") as cache, warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.admit((1, 1), b"x")
        with pickle.loads(pickle.dumps(cache)) as copy:
            assert copy.get((1, 1)) == b"x"


def test_a_larger_budget_raises_the_arena_for_all_its_users() -> None:
    with MinIOCache("1MiB", name="t-larger") as cache, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.admit((1, 1), bytes(2**20))
        assert not cache.admit((2, 2), b"x")
        with MinIOCache("3MiB", name="t-larger") as second:
            assert second.budget_bytes == cache.budget_bytes == 3 * 2**20
            assert cache.admit((2, 2), bytes(2**21))
            assert second.get((2, 2)) == bytes(2**21)
        assert cache.verify() == []


def test_a_smaller_budget_is_told_that_the_larger_holds() -> None:
    with MinIOCache("2MiB", name="t-smaller"):
        with pytest.warns(UserWarning, match=r"has a budget of 2 MiB already; the 1 MiB asked for"):
            with MinIOCache("1MiB", name="t-smaller") as second:
                assert second.budget_bytes == 2 * 2**20


def test_more_items_than_the_index_has_room_for_is_told() -> None:
    with MinIOCache("2MiB", name="t-index"), warnings.catch_warnings():
        warnings.simplefilter("error")
        with MinIOCache("2MiB", name="t-index", expected_items=1800):
            pass
        with pytest.warns(UserWarning, match=r"index for 1,843 items, and 5,000 are expected"):
            MinIOCache("2MiB", name="t-index", expected_items=5000).close()


def test_warnings_point_at_the_users_line() -> None:
    def in_a_function() -> None:
        MinIOCache("1MiB", name="t-line").close()

    with MinIOCache("2MiB", name="t-line"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        in_a_function()
    (warning,) = caught
    assert warning.filename == __file__
    assert warning.lineno == in_a_function.__code__.co_firstlineno + 1


def test_a_percentage_counts_what_packed_items_really_take() -> None:
    photo = (Path(__file__).parents[2] / "data" / "coffee.jpg").read_bytes()
    packed = _native.recode(photo, "packed")
    assert len(packed) > len(photo)
    with MinIOCache("50%", name="t-share", dataset_bytes=10 * len(photo), form="packed") as cache:
        held = [i for i in range(10) if cache.admit((i, i), packed)]
        stats = cache.stats()
        assert stats["budget_bytes"] == 5 * len(photo)
        assert len(held) == 5 * len(photo) // len(packed) < 5
        assert stats["packed_bytes"] == stats["used_bytes"] == len(held) * len(packed)


@pytest.mark.parametrize("form", ["original", "indexed", "packed", "auto"])
def test_a_cache_is_never_larger_than_its_data_set_in_any_form(form: str) -> None:
    """Loaders of all forms share it: the bound is the same, and said."""
    with MinIOCache("1GiB", name="t-dataset", dataset_bytes=5000, form=form) as cache:
        assert cache.budget_bytes == 9000
        assert cache.budget_limit() == "holding every item takes no more"
        again = pickle.loads(pickle.dumps(cache))
        assert again.budget_limit() == cache.budget_limit()
        again.close()
    with MinIOCache("50%", name="t-dataset", dataset_bytes=5000) as cache:
        assert cache.budget_bytes == 2500


def test_an_unknown_form_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="form='zip' is unknown: use 'original', 'indexed'"):
        MinIOCache(1000, name="t-form", form="zip")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "x.lock", "ü", "a" * 129, "sp ace"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="bad arena name"):
        MinIOCache(1000, name=name)


def test_a_budget_no_machine_has_makes_a_smaller_arena_and_says_why() -> None:
    with pytest.warns(UserWarning, match=r"instead of the 16 TiB asked for"):
        cache = MinIOCache("16TiB", name="t-huge", expected_items=1000)
    with cache:
        limits = _native.memory_limits()
        assert cache.budget_bytes <= int(limits["memory_bytes"] or 0)
        assert cache.admit((1, 1), bytes(100_000))


def test_an_index_no_machine_has_room_for_is_a_cache_error() -> None:
    with pytest.raises(CacheError, match="does not fit"):
        MinIOCache("16TiB", name="t-index", expected_items=2**32)


@pytest.mark.parametrize("shift", [16, 40, 60])
def test_a_record_whose_length_is_damaged_is_missed_not_followed(shift: int, shm_dir: Path) -> None:
    with MinIOCache(10_000, name="t-length") as cache:
        cache.admit((1, 1), b"x" * 100)
        (file,) = [path for path in shm_dir.iterdir() if path.suffix != ".lock"]
        with file.open("r+b") as arena:
            arena.seek(48)  # log_offset: the claim of the first record is there
            arena.seek(int.from_bytes(arena.read(8), "little"))
            claim = int.from_bytes(arena.read(8), "little")
            arena.seek(-8, 1)
            arena.write((claim | 15 << shift).to_bytes(8, "little"))
        assert cache.get((1, 1)) is None or shift == 16  # within the log: the checksum tells
        assert cache.verify() != []


def test_verify_finds_a_flipped_byte(shm_dir: Path) -> None:
    with MinIOCache(10_000, name="t-flip") as cache:
        cache.admit((1, 1), b"sensitive bytes" * 20)
        assert cache.verify() == []
        (file,) = [path for path in shm_dir.iterdir() if path.suffix != ".lock"]
        with file.open("r+b") as arena:
            arena.seek(arena.read(2**20).index(b"sensitive"))
            arena.write(b"S")
        assert len(cache.verify()) == 1
        assert "checksum" in cache.verify()[0]


def test_files_are_private_to_their_user(shm_dir: Path) -> None:
    with MinIOCache(1000, name="t-mode"):
        modes = {path.stat().st_mode & 0o777 for path in shm_dir.iterdir()}
        assert modes == {0o600}


def test_a_data_set_has_one_name_however_it_is_reached(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    link = tmp_path / "link"
    link.symlink_to(root)
    assert cache_name(str(root)) == cache_name(link) == cache_name(f"{root}/../data/")
    assert cache_name(str(root)) != cache_name(str(tmp_path))


def test_a_file_list_is_named_by_its_files_in_order() -> None:
    assert cache_name(["/a", "/b"]) == cache_name(iter(["/a", "/x/../b"]))
    assert cache_name(["/a", "/b"]) != cache_name(["/b", "/a"])
    assert cache_name(["/ab"]) != cache_name(["/a", "b"])


def test_a_damaged_item_of_ours_is_not_admitted() -> None:
    """Whoever reads it decodes it unchecked."""
    photo = Path(__file__).parents[2] / "data" / "coffee.jpg"
    packed = bytearray(_native.recode(photo.read_bytes(), "packed"))
    packed[24 + 3 * 128 : 24 + 3 * 128 + 400] = b"\xff" * 400  # its directory
    with MinIOCache("10MiB", name="t-damaged") as cache:
        with pytest.raises(ValueError, match="the item is damaged"):
            cache.admit((1, 2), bytes(packed))
