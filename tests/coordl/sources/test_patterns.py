"""Which files a pattern names."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordl.sources.patterns import expand


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for name in ("a-00.tar", "a-01.tar", "a-02.tar", "b-9.tar", "b-10.tar", "{odd}.tar"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a-{00..02}.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("a-{01..01}.tar", ["a-01.tar"]),
        ("b-{9..10}.tar", ["b-9.tar", "b-10.tar"]),
        ("{b-9,a-00}.tar", ["b-9.tar", "a-00.tar"]),
        ("a-0{2,0}.tar", ["a-02.tar", "a-00.tar"]),
        ("a-*.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("{a,b}-?{0,1}*.tar", ["a-00.tar", "a-01.tar", "b-10.tar"]),
        ("{odd}.tar", ["{odd}.tar"]),
    ],
)
def test_braces_count_and_wildcards_sort(tars: Path, pattern: str, names: list[str]) -> None:
    if "?" in pattern:  # a part of the product that names no file is an error
        with pytest.raises(FileNotFoundError, match="b-"):
            expand(str(tars / pattern))
        return
    assert expand(str(tars / pattern)) == [str(tars / name) for name in names]


def test_lists_keep_their_order(tars: Path) -> None:
    given = [tars / "b-9.tar", str(tars / "a-{00..01}.tar")]
    assert expand(given) == [str(tars / n) for n in ("b-9.tar", "a-00.tar", "a-01.tar")]


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("a-{00..03}.tar", FileNotFoundError, r"no file '.*a-03\.tar', named by '.*\{00\.\.03\}"),
        ("c-*.tar", FileNotFoundError, r"There is no file '.*c-\*\.tar'\."),
        ("a-{2..0}.tar", ValueError, "counts down"),
        ("a-{0..x}.tar", ValueError, "no range of numbers"),
        ("a-{00,00}.tar", ValueError, r"a-00\.tar is named twice"),
    ],
)
def test_a_bad_pattern_is_named(
    tars: Path, pattern: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        expand(str(tars / pattern))


@pytest.mark.parametrize("url", ["s3://bucket/a.tar", "pipe:cat a.tar"])
def test_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="local or mounted files"):
        expand(url)


def test_no_pattern_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no shards were named"):
        expand([])
