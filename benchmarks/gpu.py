"""Does a GPU wait for its input, with torch's DataLoader and with coordl?

Measured: a ResNet trained in bfloat16 (autocast, channels_last, SGD) on one GPU, by turns on
minibatches that lie in its memory (what it could do), on those of torch's DataLoader (ImageFolder
with Pillow; torchvision v2 on tensors) and on coordl's, without a cache and with one that holds all
items packed. All have `--workers` workers (coordl: threads), persistent, and pin_memory=True;
copies are non_blocking. float32 minibatches come normalised; uint8 ones are normalised on the GPU.
Samples/s over whole epochs, timed after a synchronize; median of the rounds and their range, the
first epoch (start of the workers, filling of the cache) apart. Stall: the share of an epoch that
the GPU waits, 1 - median / that of the minibatches in its memory.
Not measured: storage (everything is in the page cache); several GPUs.
Bias: ours. Photographs may be few, under many names: what decodes them does not see that.

    python benchmarks/gpu.py [--archs resnet50] [--batch 256] [--workers 16] [--rounds 3]

--folder: class folders of pictures, not the demo's. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

import torch  # noqa: E402
from torch import nn  # noqa: E402

import coordl  # noqa: E402
from benchmarks.loaders.torchs import RECIPES, one_thread  # noqa: E402
from benchmarks.peers import machine, pictures, question  # noqa: E402

QUESTION = (__doc__ or "").splitlines()[0]
DTYPES = ("float32", "uint8")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IN_MEMORY = "minibatches in the GPU's memory"


class Training:
    """One net and its optimizer; a step takes what a loader yields."""

    def __init__(self, arch: str) -> None:
        from torchvision import models

        self.model = getattr(models, arch)().cuda().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-3, momentum=0.9)
        self.mean = torch.tensor(MEAN, device="cuda").view(1, 3, 1, 1) * 255
        self.std = torch.tensor(STD, device="cuda").view(1, 3, 1, 1) * 255

    def step(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        images = images.to("cuda", non_blocking=True)
        targets = targets.to("cuda", non_blocking=True)
        if images.dtype == torch.uint8:
            images = (images.float() - self.mean) / self.std
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16):
            loss = nn.functional.cross_entropy(self.model(images), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self, loader: Iterable[Any]) -> dict[str, float]:
        """Samples/s; seconds; share of the host's time at next()."""
        torch.cuda.synchronize()
        begin, samples, waited = time.perf_counter(), 0, 0.0
        asked = begin
        for images, targets in loader:
            waited += time.perf_counter() - asked
            self.step(images, targets)
            samples += len(images)
            asked = time.perf_counter()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        return {"samples_per_s": samples / seconds, "seconds": seconds, "waited_s": waited}


class Recorded:
    """Some minibatches of a loader in the GPU's memory, again and again."""

    def __init__(self, loader: Iterable[Any], steps: int) -> None:
        self.steps = steps
        self.kept = []
        for images, targets in loader:
            self.kept.append((images.cuda(), targets.cuda()))
            if len(self.kept) == 2:
                break

    def __iter__(self) -> Iterator[Any]:
        return (self.kept[step % len(self.kept)] for step in range(self.steps))


def loaders(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """By label."""
    common: dict[str, Any] = {
        "batch_size": options.batch,
        "shuffle": True,
        "num_workers": options.workers,
        "persistent_workers": True,
        "pin_memory": True,
        "drop_last": True,
    }
    made: dict[str, Any] = {}
    for recipe in ("pillow", "v2"):
        try:
            data = RECIPES[recipe](str(options.folder), dtype == "float32")
        except (ImportError, AttributeError) as error:
            print(f"gpu: without {recipe}: {error}", file=sys.stderr)
            continue
        made[f"torch DataLoader, {recipe}"] = torch.utils.data.DataLoader(
            data, **common, worker_init_fn=one_thread
        )
    data = RECIPES["pillow"](str(options.folder), dtype == "float32")
    made["coordl, no cache"] = coordl.DataLoader(data, **common, prep="native")
    cache = coordl.MinIOCache(
        options.cache, name=f"gpu.{dtype}.{os.getpid()}", form="packed", expected_items=1 << 17
    )
    made["coordl, cache"] = coordl.DataLoader(data, **common, prep="native", cache=cache)
    return made


def measure(options: argparse.Namespace, arch: str, dtype: str) -> dict[str, Any]:
    """One table."""
    training = Training(arch)
    made = loaders(options, dtype)
    first = made["coordl, no cache"]
    recorded = Recorded(first, len(first))
    training.epoch(recorded)  # cuDNN chooses its kernels
    rows: dict[str, list[dict[str, float]]] = {IN_MEMORY: [], **{label: [] for label in made}}
    for number in range(options.rounds + 1):
        print(f"gpu: {arch}, {dtype}, epoch {number} of {options.rounds}", file=sys.stderr)
        for label, loader in ((IN_MEMORY, recorded), *made.items()):
            rows[label].append(training.epoch(loader))
    most = statistics.median(e["samples_per_s"] for e in rows[IN_MEMORY][1:])
    table = []
    for label, epochs in rows.items():
        later = [e["samples_per_s"] for e in epochs[1:]]
        table.append(
            {
                "label": label,
                "first": epochs[0]["samples_per_s"],
                "median": statistics.median(later),
                "range": [min(later), max(later)],
                "stall": 1 - statistics.median(later) / most,
                "epochs": epochs,
            }
        )
    return {"arch": arch, "dtype": dtype, "rows": table}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    photos = [path for path in sorted(options.folder.rglob("*.jpg"))]
    for path in photos:
        path.read_bytes()  # into the page cache
    torch.backends.cudnn.benchmark = True
    tables = [measure(options, arch, dtype) for arch in options.archs for dtype in options.dtypes]
    return {
        **question.head("gpu", QUESTION, options),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "photos": len(photos),
        "batch": options.batch,
        "workers": options.workers,
        "tables": tables,
    }


def _row(row: dict[str, Any]) -> str:
    low, high = row["range"]
    cells = [
        row["label"],
        f"{row['first']:,.0f}",
        f"{row['median']:,.0f} ({low:,.0f}–{high:,.0f})",
        f"{row['stall']:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def markdown(result: dict[str, Any]) -> str:
    """One table for each net and type of pixel."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"{result['gpu']}, torch {result['torch']}; {result['photos']:,} photographs in the page "
        f"cache, minibatches of {result['batch']}, {result['workers']} workers; {result['date']}. "
        "Samples/s, median (least–most).",
        "",
    ]
    for table in result["tables"]:
        lines += [
            f"## {table['arch']}, {table['dtype']}",
            "",
            "| minibatches from | first epoch | later epochs | stall |",
            "|---|---|---|---|",
            *(_row(row) for row in table["rows"]),
            "",
        ]
    return "\n".join([*lines, f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes gpu.json and gpu.md, prints the latter."""
    parser = question.parser_of(__doc__ or "")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--archs", nargs="+", default=["resnet50"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3, help="epochs after the first")
    parser.add_argument("--cache", default="8GiB")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=[*DTYPES])
    options = question.parsed(parser, arguments)
    if not torch.cuda.is_available():
        print("gpu: there is no GPU that torch can use here; nothing was measured", file=sys.stderr)
        return
    options.folder = options.folder or pictures.folder("ImageNet-like")
    result = run(options)
    question.publish("gpu", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
