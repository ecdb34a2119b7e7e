"""What the scripts of all questions share: their common options, and the two files they write."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import machine

RESULTS = Path(__file__).parent.parent / "results"


def parser_of(doc: str) -> argparse.ArgumentParser:
    """A parser with the options that every question has."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--note", default="", help="added to the machine's line")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    return parser


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options; `arguments` of them: as given, those that change what is measured."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    options.arguments = [a for a in arguments if a not in ("-o", "--output", str(options.output))]
    return options


def head(name: str, question: str, options: argparse.Namespace) -> dict[str, Any]:
    """What every result begins with."""
    return {
        "question": question,
        "command": shlex.join(["python", f"benchmarks/{name}.py", *options.arguments]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine.describe(options.note),
    }


def publish(name: str, result: dict[str, Any], text: str, output: Path) -> None:
    """Writes name.json and name.md into a folder, prints the latter."""
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (output / f"{name}.md").write_text(text)
    print(text)
