"""How many samples a second do one core and two cores prepare, by us and by every peer?

Measured: JPEG bytes in memory to float32 (3, 224, 224): decode, crop, resize, flip, normalise, on
the same crops for all, in the same run, interleaved round by round; each variant in a process of
its own (benchmarks/peers/), bound to one CPU. Median and 10-90 % spread of the rounds, the first
dropped; with glibc's malloc as it is, and with its thresholds raised, which spares some libraries
page faults. Two cores: two such processes at a time. Also every variant's difference from Pillow's
pixels, the bytes that our forms hold, and what admission costs beside one full decode.
Not measured: reading files, collation, copies between processes, a loader's own overhead; GPUs.
Bias: ours. Peers run at their documented best settings, which their files in benchmarks/peers/ say
together with the pitfalls met. Some resize without antialias, which is less work: their difference
from Pillow stands beside their speed.

    python benchmarks/prep.py [--peers] [--only KEY ...] [--data DIR] [--rounds N] [-o DIR]

Peers live in .venv-peers. Where it is not there they are left out, and the result says so; --peers
sets it up first (some minutes, 1.4 GB).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parent)  # not benchmarks/: files of peers/ are named like what they measure

from benchmarks.peers import pictures, question, rounds, table  # noqa: E402
from benchmarks.peers.registry import ENTRIES, Entry  # noqa: E402
from benchmarks.peers.variant import load_pictures  # noqa: E402

QUESTION = __doc__.splitlines()[0]


def choose_entries(keys: list[str] | None) -> list[Entry]:
    """The entries asked for; a key with a dash at its end stands for all that begin so."""
    if not keys:
        return ENTRIES
    chosen = [
        e
        for e in ENTRIES
        if any(e.key == k or (k.endswith("-") and e.key.startswith(k)) for k in keys)
    ]
    if not chosen:
        known = ", ".join(e.key for e in ENTRIES)
        raise SystemExit(f"prep: no variant is called {' '.join(keys)}. There are: {known}")
    return chosen


def find_sets(options: argparse.Namespace) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Files of every picture set, and why a set cannot be had."""
    if options.data:
        return {options.data.name: pictures.choose(options.data, options.photos, options.seed)}, {}
    found, missing = {}, {}
    for name, most in (("ImageNet-like", options.photos), ("OpenImages-like", options.large)):
        if not most:
            continue
        try:
            found[name] = pictures.choose(pictures.folder(name), most, options.seed)
        except pictures.photos.PhotosError as error:
            missing[name] = str(error)
    return found, missing


def measure_set(
    name: str, paths: list[Path], entries: list[Entry], options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, str]]:
    """One picture set: a pass per malloc setting."""
    items = load_pictures([*map(str, paths)])
    passes, left_out = [], {}
    for malloc in options.malloc:
        results, missing = rounds.measure(
            [entry for entry in entries if entry.key not in left_out],
            paths,
            rounds=options.rounds,
            seed=options.seed,
            malloc=malloc,
            cpus=sorted(os.sched_getaffinity(0))[: options.cores],
        )
        passes.append({"malloc": malloc, "results": results})
        left_out |= missing
    measured = {
        "name": name,
        "photos": len(items),
        "mean_kb": statistics.mean(len(p.item) for p in items) / 1e3,
        "mean_mpx": statistics.mean(p.width * p.height for p in items) / 1e6,
        "passes": passes,
    }
    return measured, left_out


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    sets, left_out = find_sets(options)
    measured = []
    for name, paths in sets.items():
        if not paths:
            raise SystemExit(f"prep: no .jpg files for {name}: name a folder of photographs")
        one, missing = measure_set(name, paths, choose_entries(options.only), options)
        measured.append(one)
        left_out |= missing
    versions: dict[str, str] = {}
    for each in (r for s in measured for p in s["passes"] for r in p["results"]):
        versions |= each["versions"]
    return {
        **question.head("prep", QUESTION, options),
        "versions": versions,
        "seed": options.seed,
        "rounds": options.rounds,
        "sets": measured,
        "left_out": left_out,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes prep.json and prep.md, prints the latter."""
    parser = question.parser_of(__doc__)
    parser.add_argument("--peers", action="store_true", help="set .venv-peers up first")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="variants; 'cold-' begins so")
    parser.add_argument("--data", type=Path, help="photographs of yours in place of both sets")
    parser.add_argument("--photos", type=int, default=128, help="ImageNet-like ones; 0: none")
    parser.add_argument("--large", type=int, default=40, help="OpenImages-like ones; 0: none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, choices=(1, 2), default=2)
    parser.add_argument("--malloc", nargs="+", choices=("default", "raised"))
    options = question.parsed(parser, arguments)
    options.malloc = options.malloc or ["default", "raised"]
    if options.peers:
        from benchmarks.peers import environment

        environment.set_up()
    result = run(options)
    question.publish("prep", result, table.markdown(result), options.output)


if __name__ == "__main__":
    main()
