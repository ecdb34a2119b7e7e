"""Jobs of several ranks on one machine: measured as one, every pass by all of them at once.

Ranks that train together wait for one another at every step, so that a stall of one is a stall of
all; what a rank waits for the others cannot be told from its own compute. So all of them ingest
from memory together, then all of them load: the differences between those passes are the job's
stalls, whichever rank they come from. How long each rank itself waited for minibatches is kept
beside them.

The tool answers a message of a phase when every rank has sent it. That is the barrier.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsanalyzer.measure.plan import INGESTION_STEPS

# What all ranks say before the tool answers.
TOGETHER = ("plan", "subset", "steps", "begin", "end", "done")


@dataclass(frozen=True)
class Rank:
    """One process of those that train together.

    Attributes:
        here: how many of `count` run on this machine.
    """

    number: int = 0
    count: int = 1
    here: int = 1

    @classmethod
    def of_this_process(cls) -> Rank:
        """As torch.distributed has it, or before that is initialised, the launcher."""
        import torch.distributed as dist

        number, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if dist.is_available() and dist.is_initialized():
            number, count = dist.get_rank(), dist.get_world_size()
        return cls(number, count, int(os.environ.get("LOCAL_WORLD_SIZE", count)))

    def path(self, path: str) -> str:
        """This rank's own file beside the one of that name."""
        if self.count == 1:
            return path
        root, extension = os.path.splitext(path)
        return f"{root}-{self.number}{extension}"


class Gathered:
    """Messages of ranks that wait for the others', by what they say."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[int, tuple[Any, dict[str, Any]]]] = {}

    def add(self, link: Any, message: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        """All ranks' links and messages, in their order, once the last has come; else nothing."""
        waiting = self._waiting.setdefault(message["op"], {})
        waiting[message["rank"]] = (link, message)
        if len(waiting) < message["ranks"]:
            return []
        del self._waiting[message["op"]]
        return [waiting[rank] for rank in sorted(waiting)]

    def waiting(self) -> list[int]:
        """Ranks that wait now."""
        return sorted({rank for each in self._waiting.values() for rank in each})


def together(messages: list[dict[str, Any]], run_dir: Path) -> dict[str, Any]:
    """One message that says what all ranks said, as a job without ranks would."""
    first = messages[0]
    op = first["op"]
    if op == "plan":
        available = [one["available"] for one in messages]
        return first | {
            "loader_rate": sum(one["loader_rate"] for one in messages),
            "step_rate": sum(one["step_rate"] for one in messages),
            "window": sum(one["window"] for one in messages),
            "batch": sum(one["batch"] for one in messages),
            "size": min(one["batch"] for one in messages),
            "available": None if None in available else sum(available),
        }
    if op == "begin" and "cores" in first:
        return first | {"cores": sorted({core for one in messages for core in one["cores"]})}
    if op == "subset":
        join_subsets(len(messages), run_dir)
    elif op == "end" and "record" in first:
        records = [json.loads((run_dir / one["record"]).read_text()) for one in messages]
        joined = f"pass-{records[0]['phase']}-{records[0]['round']}.json"
        (run_dir / joined).write_text(json.dumps(join_records(records)))
        return first | {"record": joined}
    elif op == "steps":
        return first | {"step_s": max(one["step_s"] for one in messages)}
    return first


def shorten_subsets(ranks: int, run_dir: Path, samples: int) -> None:
    """subset.json, and what each rank chose, of the first so many samples in all."""
    names = ["subset.json"] if ranks == 1 else [f"subset-{rank}.json" for rank in range(ranks)]
    for name in names:
        part = json.loads((run_dir / name).read_text())
        for each in ("indices", "files"):
            part[each] = part[each][: samples // ranks]
        part["sizes"] = {path: part["sizes"][path] for paths in part["files"] for path in paths}
        (run_dir / name).write_text(json.dumps(part))
    if ranks > 1:
        join_subsets(ranks, run_dir)


def join_subsets(ranks: int, run_dir: Path) -> None:
    """subset.json of all, of as many samples from each rank: they make as many steps."""
    parts = [json.loads((run_dir / f"subset-{rank}.json").read_text()) for rank in range(ranks)]
    count = min(len(part["indices"]) for part in parts)
    sizes: dict[str, int] = {}
    for part in parts:
        part["indices"], part["files"] = part["indices"][:count], part["files"][:count]
        sizes |= {path: part["sizes"][path] for paths in part["files"] for path in paths}
    why = next((part["why"] for part in parts if part["why"]), None)
    joined = {
        "indices": [index for part in parts for index in part["indices"]],
        "files": [paths for part in parts for paths in part["files"]],
        "sizes": sizes,
        "why": why,
    }
    (run_dir / "subset.json").write_text(json.dumps(joined))


def join_records(records: list[dict[str, Any]]) -> dict[str, Any]:
    """A pass of all ranks: its time is the slowest's, its samples are all of theirs."""
    slowest = max(records, key=lambda one: float(one["wall_s"]))
    return slowest | {
        "samples": sum(one["samples"] for one in records),
        "cpu_s": sum(one["cpu_s"] for one in records),
        "start_s": max(one["start_s"] for one in records),
        "rank_waits_s": [sum(one["waits_s"]) for one in records],
    }


def ingestion_steps(step_s: float, block_s: float) -> int:
    """Steps of a block that all ranks make: as many as one of them fits into `block_s`."""
    fewest, most = INGESTION_STEPS
    return max(fewest, min(most, round(block_s / max(step_s, 1e-9))))


def readers(loader: dict[str, Any]) -> int:
    """How many processes read for it at a time: workers of all ranks, or the ranks themselves."""
    return max(1, int(loader["num_workers"])) * int(loader.get("ranks", 1))
