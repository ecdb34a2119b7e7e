"""Do PNG and WebP decode as fast as in Pillow?

Measured: bytes in memory to RGB levels in memory, whole pictures, by coordl's native pass and by
Pillow's convert("RGB") into an array, in turns, CPU time of one thread; median of the rounds and
their range. Photographs of the demo, re-encoded by Pillow: PNG, WebP at quality 90, lossless WebP.
Not measured: crops (PNG and WebP are decoded whole by both), files, several threads.
Bias: coordl writes into memory that is used again; Pillow has no way to.

    python benchmarks/formats.py [--photos 24] [--rounds 7]
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.peers import machine, pictures, question  # noqa: E402
from coordl import _native  # noqa: E402

QUESTION = __doc__.splitlines()[0]
FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {"format": "PNG"},
    "WebP, quality 90": {"format": "WEBP", "quality": 90},
    "WebP, lossless": {"format": "WEBP", "lossless": True},
}


def encoded(image: Image.Image, options: dict[str, Any]) -> bytes:
    """The picture as a file of that format."""
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def by_pillow(item: bytes, out: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(item)).convert("RGB"))


def by_coordl(item: bytes, out: np.ndarray) -> np.ndarray:
    """The same, in `out`. Raises ValueError where the native pass leaves the file to Pillow."""
    if not _native.decode_region(item, 0, 0, out):
        raise ValueError("the native pass does not take it")
    return out


def measure(items: list[bytes], rounds: int) -> dict[str, Any]:
    """ms a picture of both, and whether their pixels are the same."""
    outs = [np.empty((*reversed(_native.image_size(i) or (0, 0)), 3), np.uint8) for i in items]
    decoders: dict[str, Callable[[bytes, np.ndarray], np.ndarray]] = {
        "coordl": by_coordl,
        "pillow": by_pillow,
    }
    same = all(
        np.array_equal(by_coordl(i, o), by_pillow(i, o)) for i, o in zip(items, outs, strict=True)
    )
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for number in range(rounds + 1):
        for name, decode in decoders.items():
            begin = time.thread_time()
            for item, out in zip(items, outs, strict=True):
                decode(item, out)
            if number > 0:  # the first warms up
                times[name].append((time.thread_time() - begin) / len(items) * 1e3)
    figures = {
        name: {"median": statistics.median(each), "range": [min(each), max(each)]}
        for name, each in times.items()
    }
    return {**figures, "same_pixels": same}


def markdown(result: dict[str, Any]) -> str:
    """The table."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['photos']} photographs, ms of CPU a picture, median (least–most) of "
        f"{result['rounds']} rounds; {result['date']}.",
        "",
        "| format | coordl | Pillow | x Pillow's speed | same pixels |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        cells = [
            f"{row[who]['median']:.2f} ({row[who]['range'][0]:.2f}–{row[who]['range'][1]:.2f})"
            for who in ("coordl", "pillow")
        ]
        ratio = row["pillow"]["median"] / row["coordl"]["median"]
        same = "yes" if row["same_pixels"] else "NO"
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {ratio:.2f} | {same} |")
    return "\n".join([*lines, "", f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes formats.json and formats.md, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    options = question.parsed(parser, arguments)
    paths = pictures.choose(pictures.folder("ImageNet-like"), options.photos, options.seed)
    images = [Image.open(path).convert("RGB") for path in paths]
    rows = {
        name: measure([encoded(image, how) for image in images], options.rounds)
        for name, how in FORMATS.items()
    }
    result = {
        **question.head("formats", QUESTION, options),
        "photos": len(images),
        "rounds": options.rounds,
        "rows": rows,
    }
    question.publish("formats", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
