"""What do profilers say of training scripts whose stalls are known?

Measured: four scripts (loaders/known.py) whose epoch from cold storage has a known share of prep
stall and of fetch stall, by sleeps: prep, fetch, both, neither. Each under dsanalyzer profile,
torch.profiler, TraceML (the step marked by hand), and DALI's LoaderEvaluator, which is put around
the loader by hand, once to log and once to replay minibatches from memory. What each tool's own
output says is set beside the truth. dsanalyzer is asked for an epoch with nothing cached; the
others see one epoch whose files were evicted before.
Not measured: a GPU (TraceML and torch.profiler tell more of one); what else these tools are for.
Bias: ours. The others run once over the script as it is and cannot know what a wait was for; they
are not made to.

    python benchmarks/tools.py [--photos 960]

TraceML and DALI live in .venv-peers: see prep.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.loaders.known import BATCH, Truth, truth  # noqa: E402
from benchmarks.peers import machine, pictures, question  # noqa: E402
from benchmarks.peers.link import PEERS_PYTHON  # noqa: E402
from benchmarks.storage.contender import paths_of  # noqa: E402
from dsanalyzer.measure import residency  # noqa: E402

QUESTION = (__doc__ or "").splitlines()[0]
SCRIPT = HERE / "loaders" / "known.py"
CASES = {  # prep, cold and step in ms
    "prep stall": (10.0, 0.0, 20.0),
    "fetch stall": (0.0, 10.0, 20.0),
    "both": (6.0, 8.0, 20.0),
    "neither": (2.0, 2.0, 100.0),
}
TOOLS = {
    "dsanalyzer": "dsanalyzer profile",
    "torch": "torch.profiler",
    "traceml": "TraceML",
    "evaluator": "DALI LoaderEvaluator",
}
LIMIT_S = 300


class NoAnswer(Exception):
    """A tool said nothing that could be read; says what came instead."""


def job_of(case: str, folder: Path) -> list[str]:
    prep, cold, step = CASES[case]
    words = [str(SCRIPT), str(folder), "--prep-ms", str(prep), "--cold-ms", str(cold)]
    return [*words, "--step-ms", str(step)]


def run(words: list[str], where: Path) -> str:
    """The command's output. Raises NoAnswer."""
    done = subprocess.run(
        words,
        cwd=where,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "COLUMNS": "200"},
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise NoAnswer(f"exit code {done.returncode}: {last}")
    return done.stdout


def ask_dsanalyzer(case: str, folder: Path, where: Path) -> dict[str, Any]:
    options = ["--cached", "0%", "--rounds", "3", "--epochs", "3"]
    profile = [sys.executable, "-m", "dsanalyzer", "profile", *options, "-o", "r.json", "--"]
    run([*profile, sys.executable, *job_of(case, folder)], where)
    steady = json.loads((where / "r.json").read_text())["steady"]
    total = steady["time_s"]["value"]
    parts = {kind: steady[f"{kind}_stall_s"] for kind in ("prep", "fetch")}
    return {kind: part["value"] / total for kind, part in parts.items()} | {
        "says": ", ".join(f"{kind}: {part['verdict']}" for kind, part in parts.items())
    }


def ask_torch(case: str, folder: Path, where: Path) -> dict[str, Any]:
    under = str(HERE / "loaders" / "under_profiler.py")
    run([sys.executable, under, "out.json", *job_of(case, folder), "--epochs", "1"], where)
    found = json.loads((where / "out.json").read_text())
    return {"wait": found["wait_s"] / found["wall_s"], "says": "time in the DataLoader's next()"}


def ask_traceml(case: str, folder: Path, where: Path) -> dict[str, Any]:
    program = str(PEERS_PYTHON.parent / "traceml")
    script, *arguments = job_of(case, folder)
    text = run([program, "run", script, "--args", *arguments, "--epochs", "1", "--traceml"], where)
    for path in where.rglob("final_summary.json"):
        summary = json.loads(path.read_text())
        average = summary["step_time"]["global"]["average"]
        wait, step = average["input_wait_ms"], average["step_time_ms"]
        if wait is not None and step:
            status = summary["primary_diagnosis"]["status"]
            return {"wait": wait / step, "says": str(status).lower()}
    raise NoAnswer(f"no step times in its summary: {text[-200:]!r}")


def ask_evaluator(case: str, folder: Path, where: Path) -> dict[str, Any]:
    seconds = {}
    for mode in ("log", "replay"):
        evict(folder)
        more = ["--epochs", "1", "--evaluator", mode, f"{mode}.json"]
        run([str(PEERS_PYTHON), *job_of(case, folder), *more], where)
        seconds[mode] = json.loads((where / f"{mode}.json").read_text())["total_time"]
    return {"wait": 1 - seconds["replay"] / seconds["log"], "says": "its two runs compared"}


ASK = {
    "dsanalyzer": ask_dsanalyzer,
    "torch": ask_torch,
    "traceml": ask_traceml,
    "evaluator": ask_evaluator,
}


def evict(folder: Path) -> None:
    for path in paths_of(folder):
        residency.evict(path)


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON has it."""
    rows, left_out = [], {}
    kinds = [kind for kind in TOOLS if kind in ("dsanalyzer", "torch") or PEERS_PYTHON.exists()]
    with pictures.linked(pictures.folder("ImageNet-like"), options.photos, options.seed) as folder:
        for case in CASES:
            true: Truth = truth(*CASES[case])
            row: dict[str, Any] = {
                "case": case,
                "prep": true.prep_stall_s / true.total_s,
                "fetch": true.fetch_stall_s / true.total_s,
                "tools": {},
            }
            for kind in kinds:
                print(f"tools: {case}: {kind}", file=sys.stderr)
                evict(folder)
                with tempfile.TemporaryDirectory() as where:
                    try:
                        row["tools"][kind] = ASK[kind](case, folder, Path(where))
                    except (NoAnswer, OSError, subprocess.TimeoutExpired) as error:
                        left_out[kind] = str(error)
            rows.append(row)
    return {
        **question.head("tools", QUESTION, options),
        "photos": options.photos,
        "batch": BATCH,
        "rows": rows,
        "left_out": left_out,
    }


def markdown(result: dict[str, Any]) -> str:
    """One table."""
    lines = [f"# {result['question']}", "", machine.line(result["machine"]) + ".", ""]
    lines += [
        f"Shares of an epoch with nothing in memory; {result['photos']} files, minibatches of "
        f"{result['batch']}; {result['date']}. A tool that gives one figure for fetch and prep has "
        "it in the column of both.",
        "",
        "| script | tool | prep stall | fetch stall | both | in its words |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        prep, fetch = row["prep"], row["fetch"]
        lines.append(
            f"| {row['case']} | the truth | {prep:.0%} | {fetch:.0%} | {prep + fetch:.0%} | |"
        )
        for kind, found in row["tools"].items():
            cells = [f"{found[name]:.0%}" if name in found else "" for name in ("prep", "fetch")]
            both = found.get("wait", found.get("prep", 0) + found.get("fetch", 0))
            lines.append(
                f"| | {TOOLS[kind]} | {' | '.join(cells)} | {both:.0%} | {found['says']} |"
            )
    lines += [""] + [f"Left out: {TOOLS[kind]}: {why}" for kind, why in result["left_out"].items()]
    return "\n".join([*lines, f"Made by `{result['command']}`.", ""])


def main(arguments: list[str] | None = None) -> None:
    """Measures, writes tools.json and tools.md, prints the latter."""
    parser = question.parser_of(__doc__ or "")
    parser.add_argument("--photos", type=int, default=960)
    options = question.parsed(parser, arguments)
    result = run_all(options)
    question.publish("tools", result, markdown(result), options.output)


if __name__ == "__main__":
    main()
