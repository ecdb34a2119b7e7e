from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordl.fetch.budget import format_bytes, parse_budget


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
