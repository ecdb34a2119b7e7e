"""`make demo`: the whole promise on real photographs, in five steps.

    profile the stock script -> predict -> change one import -> profile again -> compare

The script under test is examples/train_images.py, unedited. Both profiles run on two cores, so that
the demo means the same on every machine, and with an emulated accelerator; reads are slowed down to
a cluster's shared disk. The stock run gets an LRU page cache that holds CACHED of the data set, the
coordl run the same share in coordl's own never-evict cache and no page cache at all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from demo import photos

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "reports" / "demo"

CACHED = "65%"
STORAGE = "15MB/s"
GPU_RATE = "1000"  # samples/s: what a data-centre GPU trains ResNet-50-like nets at
CORES = 2
MOST_PICTURES = 4000  # of a folder the user names: the demo is to take minutes
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
JOB = ["--batch-size", "32", "--workers", "4"]

out = Console(highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data",
        default=os.environ.get("DATA"),
        help="your own pictures: DIR/train/CLASS/*.jpg and DIR/val/...",
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
        data = _pictures(arguments.data)
        REPORTS.mkdir(parents=True, exist_ok=True)
        _run_steps(str(data))
    except photos.PhotosError as error:
        out.print(f"[bold red]No pictures:[/] {error}")
        return 2
    except KeyboardInterrupt:
        out.print("\nInterrupted.")
        return 130
    except subprocess.CalledProcessError as error:
        out.print(f"\n[bold red]The demo stopped:[/] exit code {error.returncode} (see above).")
        return 2
    out.print(f"\nDone in {time.monotonic() - started:.0f} s. Reports:")
    for page in ("before.html", "after.html", "comparison.html"):
        out.print(f"  {REPORTS / page}")
    return 0


def _run_steps(data: str) -> None:
    before, after = REPORTS / "before.json", REPORTS / "after.json"
    predicted = REPORTS / "predicted.json"
    common = ["--gpu-rate", GPU_RATE, "--storage", STORAGE, "-f"]
    _step("1. Where does the epoch go? The stock script, unedited")
    _dsanalyzer(
        *("profile", "--cached", CACHED, "--policy", "lru", *common),
        *("-o", before, "--html", REPORTS / "before.html"),
        *("--", sys.executable, "examples/train_images.py", data, *JOB),
    )
    _step("2. What would fix it? Predicted now, before anything is changed")
    _dsanalyzer("whatif", before, "--loader", "coordl", "-o", predicted, "-f")
    _step("3. The fix: one import and one argument")
    _diff("examples/train_images.py", "examples/train_images_coordl.py")
    _step("4. The same profile, with coordl")
    _dsanalyzer(
        *("profile", "--cached", "0%", "--policy", "lru", *common),
        *("-o", after, "--html", REPORTS / "after.html"),
        *("--", sys.executable, "examples/train_images_coordl.py", data, *JOB),
    )
    _step("5. Before, after, and what was predicted")
    _dsanalyzer(
        *("compare", before, after, "--predicted", predicted),
        *("--html", REPORTS / "comparison.html", "-f"),
    )
    _verdicts(before, after, predicted)


def _verdicts(before: Path, after: Path, predicted: Path) -> None:
    """What the demo set out to show, held against what it measured."""
    stock, ours = (json.loads(path.read_text()) for path in (before, after))
    (scenario,) = json.loads(predicted.read_text())["scenarios"]
    stalls = [stock["steady"][f"{name}_stall_s"]["verdict"] for name in ("fetch", "prep")]
    error = scenario["speed"]["value"] / ours["steady"]["speed"]["value"] - 1
    passes = [p for p in ours["passes"] if p["phase"] == "fetch" and p["epoch"] > 0]
    read = sum(p["read_bytes"] for p in passes)
    uncached = sum(p["missed_device_bytes"] for p in passes)
    shown = [
        (stalls == ["stall", "stall"], "the stock loader shows both a fetch and a prep stall"),
        (
            abs(read / uncached - 1) <= 0.01,
            f"disk reads are what does not fit: {read / len(passes) / 1e6:.1f} MB per epoch after "
            f"the first, {uncached / len(passes) / 1e6:.1f} MB not held by coordl's cache",
        ),
        (abs(error) <= 0.1, f"predicted within 10 %: off by {error:+.1%}"),
    ]
    out.print()
    for ok, text in shown:
        out.print(f"[green]✓[/] {text}" if ok else f"[red]✗ not shown this time:[/] {text}")


def _pictures(given: str | None) -> Path:
    """The folder to train on: the built set, or the user's own, cut down where it is large."""
    if not given:
        return photos.build(photos.default_place())
    folder = photos.check_folder(given)
    if folder.train_pictures <= MOST_PICTURES and folder.val is not None:
        return folder.root
    part = REPORTS / "pictures"
    shutil.rmtree(part, ignore_errors=True)
    for name, source in (("train", folder.train), ("val", folder.val or folder.train)):
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        for path in random.Random(0).sample(files, min(len(files), MOST_PICTURES)):
            link = part / name / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    out.print(
        f"{folder.train_pictures} pictures in {folder.root}; the demo trains on "
        f"{min(folder.train_pictures, MOST_PICTURES)} of them."
    )
    return part


def _step(title: str) -> None:
    out.print()
    out.rule(f"[bold]{title}", align="left")


def _dsanalyzer(*words: str | Path) -> None:
    command = [str(Path(sys.executable).with_name("dsanalyzer")), *map(str, words)]
    shown = ["dsanalyzer", *(_short(word) for word in command[1:])]
    out.print(f"$ {shlex.join(shown)}\n", style="cyan", soft_wrap=True)
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it had the same Ctrl-C and is cleaning up
        raise
    if code:
        raise subprocess.CalledProcessError(code, command)


def _short(word: str) -> str:
    if word == sys.executable:
        return "python"
    return word.removeprefix(f"{ROOT}{os.sep}")


def _diff(before: str, after: str) -> None:
    shown = subprocess.run(
        ["diff", "--unified=0", before, after], cwd=ROOT, capture_output=True, text=True
    )
    for line in shown.stdout.splitlines():
        if not line.startswith(("---", "+++", "@@")):
            out.print(line, style="green" if line.startswith("+") else "red", markup=False)


if __name__ == "__main__":
    sys.exit(main())
