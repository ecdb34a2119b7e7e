"""How many samples a second does one core prepare, from JPEG bytes in memory to float32 224x224?

Measured: decode, random resized crop, flip, normalise, (3, 224, 224) float32; in one thread, by its
own CPU time, variants interleaved round by round, median and spread of the rounds.
Not measured: reading files, collation, the GIL, several cores.
Bias: ours. The Pillow recipe is torchvision's classic one (torchvision itself where it imports,
else coordl.transforms, which make the same Pillow and torch calls); crops come from the same
distribution, not the same draws.

    python benchmarks/prep.py [--data DIR] [--rounds N] [--output DIR]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from coordl import _native, transforms
from coordl.prep.plan import Plan, compile_plan

HERE = Path(__file__).parent
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Variant = Callable[[bytes, int, int], None]


def recipe(library) -> object:
    return library.Compose(
        [
            library.RandomResizedCrop(224),
            library.RandomHorizontalFlip(),
            library.ToTensor(),
            library.Normalize(MEAN, STD),
        ]
    )


def native() -> Variant:
    plan = compile_plan(recipe(transforms))
    assert isinstance(plan, Plan)
    native_pass = plan.native_pass()
    out = np.empty(plan.shape, np.float32)

    def run(item: bytes, epoch: int, index: int) -> None:
        if not _native.prepare(item, native_pass, 1, epoch, index, out):
            raise SystemExit(f"photo {index} is not one for the native pass: leave it out")

    return run


def pillow(library) -> Variant:
    transform = recipe(library)

    def run(item: bytes, epoch: int, index: int) -> None:
        transform(Image.open(io.BytesIO(item)).convert("RGB"))

    return run


def torchvision_transforms():
    try:
        import torchvision.transforms as real
    except (ImportError, RuntimeError):
        return None
    return real


def measure(
    variants: dict[str, Variant], items: list[bytes], rounds: int
) -> dict[str, list[float]]:
    """Samples per CPU second of each round; the first, a warm-up, is dropped."""
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for epoch in range(rounds + 1):
        for name, run in variants.items():
            start = time.thread_time()
            for index, item in enumerate(items):
                run(item, epoch, index)
            rate = len(items) / (time.thread_time() - start)
            if epoch:
                rates[name].append(rate)
    return rates


def table(result: dict) -> str:
    lines = [
        f"{result['photos']} photographs, {result['mean_kb']:.0f} KB mean; "
        f"{result['rounds']} rounds, seed {result['seed']}; {result['machine']}; "
        "one thread, its CPU time.",
        "",
        "| variant | samples/s per core, median | spread (10-90 %) | x Pillow |",
        "|---|---|---|---|",
    ]
    base = result["variants"][-1]["median"]
    for v in result["variants"]:
        spread = f"{v['p10']:.0f}-{v['p90']:.0f}"
        lines.append(f"| {v['name']} | {v['median']:.0f} | {spread} | {v['median'] / base:.1f} |")
    return "\n".join([*lines, "", result["versions"], ""])


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def default_data() -> Path:
    """The demo's photographs where they have been built, else those of the tests."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "data-stall-toolkit" / "photos-v1" / "train"
    return built if built.is_dir() else HERE.parent / "tests" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data(), help="photographs")
    parser.add_argument("--photos", type=int, default=500, help="at most so many")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--note", default="", help="added to the machine's line")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    paths = sorted(p for p in options.data.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    paths = random.Random(1).sample(paths, min(len(paths), options.photos))
    items = [path.read_bytes() for path in paths]
    if not items:
        raise SystemExit(f"no .jpg files under {options.data}: name a folder of photographs")
    items *= max(1, 100 // len(items))  # rounds long enough for the clock

    real = torchvision_transforms()
    name = "Pillow recipe, torchvision's transforms" if real else "Pillow recipe, coordl.transforms"
    variants = {
        f"native pass ({_native.simd()})": native(),
        name: pillow(real or transforms),
    }
    rates = measure(variants, items, options.rounds)
    result = {
        "question": __doc__.splitlines()[0],
        "photos": len(paths),
        "mean_kb": statistics.mean(map(len, items)) / 1e3,
        "rounds": options.rounds,
        "seed": 1,
        "machine": ", ".join(filter(None, [cpu_name(), options.note])),
        "versions": f"torch {torch.__version__}, Pillow {PIL.__version__}, "
        f"Python {platform.python_version()}",
        "variants": [
            {
                "name": variant,
                "median": statistics.median(values),
                "p10": float(np.quantile(values, 0.1)),
                "p90": float(np.quantile(values, 0.9)),
                "rounds": values,
            }
            for variant, values in rates.items()
        ],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "prep.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.output / "prep.md").write_text(table(result))
    print(table(result))
    print(f"written: {options.output / 'prep.json'}, {options.output / 'prep.md'}")


if __name__ == "__main__":
    main()
