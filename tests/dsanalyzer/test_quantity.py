"""Quantities as people write them."""

import pytest

from dsanalyzer import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [("15MB/s", 15e6), ("500 MiB", 500 * 2**20), ("1.5GB/s", 1.5e9), ("NVMe", 3.5e9), ("80", 80.0)],
)
def test_storage_rates(text, value):
    assert quantity.bytes_per_s(text) == value


@pytest.mark.parametrize("text", ["fast", "-3MB/s", "0", "3 parsecs", "."])
def test_a_storage_rate_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="not a storage rate"):
        quantity.bytes_per_s(text)


def test_shares():
    assert quantity.fraction("65%") == quantity.fraction("0.65") == 0.65
    with pytest.raises(ValueError, match="not between"):
        quantity.fraction("120%")
    with pytest.raises(ValueError, match="not a share"):
        quantity.fraction("most")


def test_factors():
    assert quantity.factor("2x") == 2.0
    with pytest.raises(ValueError, match="not a factor"):
        quantity.factor("0x")


def test_times():
    assert [quantity.duration_s(text) for text in ("3m", "90s", "90", "1.5h")] == [
        180,
        90,
        90,
        5400,
    ]
    with pytest.raises(ValueError, match="not a time; write 3m"):
        quantity.duration_s("soon")


def test_network_rates_are_written_in_bits_or_bytes():
    assert quantity.network_bytes_per_s("10Gbit/s") == 1.25e9
    assert quantity.network_bytes_per_s("1.2GB/s") == 1.2e9
    with pytest.raises(ValueError, match="not a network rate"):
        quantity.network_bytes_per_s("0Gbit/s")


def test_numbers_are_a_list():
    assert quantity.counts("1, 2,8") == (1, 2, 8) and quantity.counts(" ") == ()
    with pytest.raises(ValueError, match=r"'2,x' are no numbers; write 1,2,4,8"):
        quantity.counts("2,x")
