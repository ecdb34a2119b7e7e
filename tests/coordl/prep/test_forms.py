"""The form items are admitted in makes the epochs to come shortest, by a plain model of them."""

from __future__ import annotations

import pytest

from coordl import _native

# 100 MB of files; seconds a byte as original, indexed, packed; growth as measured.
BYTES = 100e6
PREP_S, GROWTH = (1e-8, 0.8e-8, 0.3e-8), (1.0, 1.04, 1.33)


def mix(budget: float, storage_rate: float, prep_s=PREP_S) -> tuple[str, float]:
    return _native.choose_mix(
        bytes=BYTES, budget=budget, prep_s=prep_s, growth=GROWTH, storage_rate=storage_rate
    )


def epoch_s(budget: float, storage_rate: float, base: int, packed: float) -> float:
    """The model once more, plainly: the longer of reading what is not held and preparing."""
    growth = packed * GROWTH[2] + (1 - packed) * GROWTH[base]
    held = min(1, budget / (BYTES * growth))
    cached = packed * PREP_S[2] + (1 - packed) * PREP_S[base]
    fetch = (1 - held) * BYTES / storage_rate
    prep = BYTES * (held * cached + (1 - held) * PREP_S[0])
    return max(fetch, prep) + 0.01 * (fetch + prep)


def test_slow_storage_wants_the_files_as_they_are() -> None:
    assert mix(65e6, 15e6) == ("original", 0.0)


def test_fast_storage_wants_packed_items() -> None:
    assert mix(65e6, 2e9)[1] == 1.0


def test_between_them_reading_and_preparing_are_balanced() -> None:
    base, packed = mix(65e6, 60e6)
    assert 0 < packed < 1 or base == "indexed"


def test_files_that_fit_stay_cached_whole_however_fast_storage_is() -> None:
    base, packed = mix(110e6, 2e9)
    growth = packed * GROWTH[2] + (1 - packed) * (GROWTH[1] if base == "indexed" else 1)
    assert growth <= 1.1


@pytest.mark.parametrize("budget", [20e6, 50e6, 90e6])
@pytest.mark.parametrize("storage_rate", [5e6, 40e6, 100e6, 300e6, 1e9])
def test_no_other_mix_has_a_shorter_epoch(budget: float, storage_rate: float) -> None:
    base, packed = mix(budget, storage_rate)
    chosen = epoch_s(budget, storage_rate, ("original", "indexed").index(base), packed)
    others = [epoch_s(budget, storage_rate, b, p / 16) for b in (0, 1) for p in range(17)]
    assert chosen == pytest.approx(min(others))


def test_files_that_have_no_indexed_form_are_weighed_without_it() -> None:
    assert mix(65e6, 2e9, prep_s=(1e-8, 0.0, 0.3e-8)) == ("original", 1.0)
    assert mix(65e6, 2e9, prep_s=(1e-8, 0.0, 0.0)) == ("original", 0.0)
