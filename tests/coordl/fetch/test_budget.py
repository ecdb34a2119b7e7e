from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordl import _native
from coordl.errors import CacheError
from coordl.fetch.budget import auto_budget, format_bytes, parse_budget
from coordl.fetch.cache import MinIOCache

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 2**30),
        ("500MB", 500_000_000),
        ("1.5 kib", 1536),
        ("4096", 4096),
        ("7B", 7),
        (" 3 TiB ", 3 * 2**40),
        (123, 123),
    ],
)
def test_sizes_are_read_with_decimal_and_binary_units(text: int | str, size: int) -> None:
    assert parse_budget(text) == size


def test_a_percentage_means_encoded_bytes_of_the_data_set() -> None:
    assert parse_budget("65%", 1000) == 650
    assert parse_budget("0.5%", 1000) == 5
    assert parse_budget("33.3%", 10) == 3


@given(st.integers(1, 100), st.integers(100, 2**60))
def test_percentages_are_exact_for_any_data_set(share: int, size: int) -> None:
    assert parse_budget(f"{share}%", size) == share * size // 100


@pytest.mark.parametrize("bad", ["", "much", "2XB", "-1", "1e9", "65 percent", "GiB", "1.2.3MB"])
def test_what_is_no_size_is_refused_with_examples(bad: str) -> None:
    with pytest.raises(ValueError, match="'2GiB'"):
        parse_budget(bad, 1000)


def test_a_percentage_without_a_data_set_says_what_to_write() -> None:
    with pytest.raises(ValueError, match="write the size in bytes"):
        parse_budget("65%")


@pytest.mark.parametrize("bad", [0, -5, "0", "0GiB", "0%", "0.001%"])
def test_a_budget_of_no_byte_is_refused(bad: int | str) -> None:
    with pytest.raises(ValueError, match="at least one"):
        parse_budget(bad, 1000)


def test_a_percentage_above_any_form_of_the_items_is_refused() -> None:
    assert parse_budget("140%", 1000) == 1400
    with pytest.raises(ValueError, match="more than 200% is never used"):
        parse_budget("201%", 1000)


@pytest.mark.parametrize("bad", [True, 1.5, None, b"2GiB"])
def test_other_types_are_refused(bad: object) -> None:
    with pytest.raises(TypeError, match="give bytes"):
        parse_budget(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (2**30, "1 GiB"), (2**50, "1.02e+03 TiB")],
)
def test_sizes_are_printed_with_three_digits(size: int, text: str) -> None:
    assert format_bytes(size) == text


def fake_limits(monkeypatch: pytest.MonkeyPatch, allowed: int | None, limit: str) -> None:
    limits = {"allowed_bytes": allowed, "limit": limit, f"{limit}_free_bytes": allowed}
    monkeypatch.setattr(_native, "memory_limits", lambda: limits)


@pytest.mark.parametrize(
    ("limit", "says"),
    [("shm", "shared-memory directory"), ("cgroup", "control group"), ("memory", "available mem")],
)
def test_auto_takes_three_quarters_of_what_is_allowed_and_says_of_what(
    limit: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert auto_budget({"allowed_bytes": 4001, "limit": limit})[0] == 3000
    assert says in auto_budget({"allowed_bytes": 4001, "limit": limit})[1]
    fake_limits(monkeypatch, 4001, limit)
    assert parse_budget("auto") == parse_budget(" Auto ", 10) == 3000


def test_auto_without_any_limit_asks_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_limits(monkeypatch, None, "none")
    with pytest.raises(CacheError, match="write the size"):
        parse_budget("auto")


def test_auto_never_goes_beyond_what_the_data_set_can_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_limits(monkeypatch, 40 * MIB, "memory")
    with MinIOCache("auto", name="t-auto", dataset_bytes=4 * MIB) as cache:
        assert cache.budget_bytes == int(1.8 * 4 * MIB)  # all of it packed
        assert cache.budget_limit() == "holding every item takes no more"
    with MinIOCache("auto", name="t-auto", dataset_bytes=400 * MIB) as cache:
        assert cache.budget_bytes == 30 * MIB
        assert "of 30 MiB, as three quarters of the machine's available memory" in repr(cache)


def test_auto_takes_the_budget_another_user_made_without_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_limits(monkeypatch, 40 * MIB, "cgroup")
    with MinIOCache("2MiB", name="t-auto") as first:
        assert first.budget_limit() == ""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with MinIOCache("auto", name="t-auto") as second:
                assert second.budget_bytes == 2 * MIB
                assert second.budget_limit() == "the largest asked for so far"
                third = pickle.loads(pickle.dumps(second))
                assert third.budget_limit() == second.budget_limit()
                third.close()


def test_auto_with_hardly_any_memory_is_an_error_that_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch, shm_dir: Path
) -> None:
    fake_limits(monkeypatch, 1 * MIB, "cgroup")
    with pytest.raises(CacheError, match=r"allows 768 KiB.*raise the container's"):
        MinIOCache("auto", name="t-auto")
