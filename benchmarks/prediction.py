"""How far off are dsanalyzer's predictions, each made from one profile before the run it predicts?

Measured: a grid of configurations (cached fraction, storage, workers, accelerator, model, jobs,
coordl's forms). A few *bases* are profiled, each three times, of which the one in the middle by
its prep rate is taken, as machines are not steady. From each all its configurations are predicted
at once, and the predictions are written to disk and synced; only then each configuration is run,
and its speed compared. More than a third of the runs have a real model on the CPU and storage held
back by the kernel (blkio control group); the others an emulated accelerator. coordl's prep rates
come from `coordl rates`, a short sample run of its own. Runs of one job are `dsanalyzer profile` at
the new setting (the page cache is the tool's LRU in both), those of several jobs plain processes.
Not measured: a GPU; several servers; storage other than this machine's disk, held back.
A run in which the loader alone, from memory, was surely (by both intervals) and over 5 % faster or
slower than in the base is done again, once, whatever its speed: the machine had changed. What still
drifts is said.
Bias: ours; two virtual CPUs that training and prep share, so that real models are the harder case.

    python benchmarks/prediction.py [--photos 800] [--only emulated] [--list]

Stopped and started again it goes on where it was: finished runs are kept in the folder --keep. A
family takes from 15 minutes to an hour, all of it on one machine; what --only leaves out stays in
the results as it was measured before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if not __package__:
    sys.path[0] = str(HERE.parent)  # not benchmarks/: its folders are named like packages

from benchmarks.peers import machine, pictures  # noqa: E402
from dsanalyzer.predict.change import Change  # noqa: E402
from dsanalyzer.predict.whatif import Basis, predict  # noqa: E402
from dsanalyzer.report import load  # noqa: E402

QUESTION = (__doc__ or "").splitlines()[0]
JOB = HERE / "loaders" / "trainer.py"
TARGETS = {"median": 0.02, "95th percentile": 0.05, "worst": 0.08}
BATCH = 24  # a pass over the photographs is then long against two workers' prefetching
# Of so many profiles the one whose prep rate lies in the middle is the base. Prep is measured with
# the workers that will be asked about: two on two threads of one core are not twice as fast as one.
BASES = 3
LONG = ("--rounds", "3", "--epochs", "4", "--budget", "4m", "--sweep", "1,3,4")
SHORT = ("--rounds", "1", "--epochs", "3", "--budget", "3m", "--block", "0.5")
DRIFT = 0.05  # of the loader's own rate, from which on the machine is not the base's
TRIES = 2


@dataclass(frozen=True)
class Point:
    """One configuration. Storage in MB/s, 0 for as it is; gpu in samples/s, 0 for a real model."""

    cached: float = 0.5
    storage: int = 20
    workers: int = 2
    gpu: int = 0
    model: str = "small"
    jobs: int = 1
    form: str = ""  # of coordl's items; "" is torch's loader

    @property
    def name(self) -> str:
        parts = [f"x{self.cached:.0%}", f"{self.storage}MBs", f"w{self.workers}"]
        parts.append(f"gpu{self.gpu}" if self.gpu else self.model)
        parts += [f"{self.jobs}jobs"] if self.jobs > 1 else []
        parts += [f"coordl-{self.form}"] if self.form else []
        return "-".join(parts).replace("%", "")

    @property
    def real(self) -> bool:
        """A real model and storage held back by the kernel."""
        return not self.gpu and self.storage > 0


@dataclass(frozen=True)
class Family:
    """A base and the points that are predicted from it."""

    base: Point
    points: tuple[Point, ...]


def families() -> dict[str, Family]:
    """The grid: at least 60 points, at least a third of them real."""
    emulated = Point(gpu=600, model="tiny")
    grid = [
        replace(emulated, cached=x, storage=storage, gpu=gpu)
        for x in (0.0, 0.35, 0.65, 1.0)
        for storage in (10, 20, 60)
        for gpu in (300, 900)
    ]
    grid += [replace(emulated, workers=n, cached=x) for n in (1, 3, 4) for x in (0.35, 1.0)]
    made = {"emulated": Family(emulated, tuple(grid))}
    for model in ("small", "medium"):
        base = Point(model=model)
        real = [
            replace(base, cached=x, storage=storage)
            for x in (0.0, 0.35, 0.65, 1.0)
            for storage in (10, 20, 40)
        ]
        real += [replace(base, workers=n, cached=0.35) for n in (1, 3)]
        real += [replace(base, jobs=n, cached=1.0) for n in (2, 3)]
        made[model] = Family(base, tuple(real))
    forms = [
        replace(emulated, form=form, cached=x)
        for form in ("original", "indexed", "packed")
        for x in (0.35, 0.65)
    ]
    made["coordl"] = Family(emulated, tuple(forms))
    return made


def change_of(base: Point, point: Point) -> Change:
    """What `point` changes of `base`, as a what-if question."""
    new: dict[str, Any] = {}
    if point.form:
        new |= {"loader": "coordl", "form": point.form}
    if point.cached != base.cached or point.form:
        new["cached_fraction"] = point.cached
    if point.storage != base.storage:
        new["storage_bytes_per_s"] = point.storage * 1e6
    if point.workers != base.workers:
        new["workers"] = point.workers
    if point.gpu != base.gpu:
        new["gpu_speedup"] = point.gpu / base.gpu
    if point.jobs > 1:
        new["jobs"] = point.jobs
    return Change(**new)


def job_words(point: Point, folder: Path) -> list[str]:
    words = [sys.executable, str(JOB), str(folder), "--batch", str(BATCH)]
    words += ["--model", point.model, "--workers", str(point.workers)]
    if point.form:
        words += ["--loader", "coordl", "--cache", f"{point.cached:.0%}", "--form", point.form]
    return words


def profile(point: Point, folder: Path, output: Path, care: tuple[str, ...]) -> dict[str, Any]:
    """`dsanalyzer profile` at the point's setting; the result, kept in `output`."""
    if not output.exists():
        held = "0%" if point.form else f"{point.cached:.0%}"
        words = [sys.executable, "-m", "dsanalyzer", "profile", "--cached", held]
        words += [*care, "-o", str(output)]
        words += ["--storage", f"{point.storage}MB/s"] if point.storage else []
        words += ["--gpu-rate", str(point.gpu)] if point.gpu else []
        subprocess.run([*words, "--", *job_words(point, folder)], check=True, stdout=sys.stderr)
    return dict(load.load_result(output))


def steady(
    point: Point, basis: Point, base: dict[str, Any], folder: Path, output: Path
) -> tuple[dict[str, Any], float]:
    """The point's profile, and how far the machine drifted since the base.

    What the loader alone prepares from memory, nobody training, no point changes but one of other
    workers or of coordl. Where it did change the machine did, and the point is run again; a run's
    speed has no say in that.
    """
    alike = point.workers == basis.workers and not point.form
    tried = len(list(output.parent.glob(f"{output.stem}.drifted-*")))
    while True:
        found = profile(point, folder, output, SHORT)
        prep, before = found["rates"]["P"], base["rates"]["P"]
        apart = prep["low"] > before["high"] or prep["high"] < before["low"]
        drift = prep["value"] / before["value"] - 1 if alike and apart else 0.0
        if abs(drift) <= DRIFT or tried >= TRIES - 1:
            return found, drift
        output.rename(output.with_suffix(f".drifted-{tried}.json"))
        tried += 1


def run_jobs(point: Point, folder: Path, output: Path) -> dict[str, Any]:
    """So many plain processes at once, everything in memory; mean speed of one of them."""
    if not output.exists():
        words = [*job_words(point, folder), "--timed", "4"]
        running = [
            subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(point.jobs)
        ]
        told = [json.loads(process.communicate()[0]) for process in running]
        # First epochs start workers and fill caches; last ones see the others end.
        speeds = [one["samples"] * 2 / sum(one["seconds"][1:3]) for one in told]
        written = {"created": now(), "speed": statistics.mean(speeds), "jobs": told}
        output.write_text(json.dumps(written))
    return dict(json.loads(output.read_text()))


def coordl_rates(base: dict[str, Any], place: Path) -> dict[str, Any]:
    """Short sample runs of coordl's prep, by form."""
    from dsanalyzer.cli.coordl_rates import measured_rates

    found = {}
    for form in ("original", "indexed", "packed"):
        kept = place / f"rates-{form}.json"
        if not kept.exists():
            kept.write_text(json.dumps(measured_rates(base, form)))  # type: ignore[arg-type]
        found[form] = json.loads(kept.read_text())
    return found


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_predictions(family: Family, base: dict[str, Any], place: Path, rates: Any) -> Any:
    """All predictions of a family, on disk before any of its runs."""
    output = place / "predictions.json"
    if output.exists():
        return json.loads(output.read_text())
    basis = Basis.of(base)  # type: ignore[arg-type]
    predictions = {}
    for point in family.points:
        change = change_of(family.base, point)
        predictions[point.name] = predict(basis, change, rates and rates[point.form or "original"])
    document = {
        "created": now(),
        "predictions": predictions,
    }
    with open(output, "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    return document


def measure(name: str, family: Family, folder: Path, kept: Path) -> Iterator[dict[str, Any]]:
    """Rows of one family: predicted, then run."""
    place = kept / name
    place.mkdir(parents=True, exist_ok=True)
    bases = [
        profile(family.base, folder, place / f"base-{number}.json", LONG) for number in range(BASES)
    ]
    base = sorted(bases, key=lambda found: float(found["rates"]["P"]["value"]))[BASES // 2]
    rates = coordl_rates(base, place) if any(point.form for point in family.points) else None
    document = write_predictions(family, base, place, rates)
    for number, point in enumerate(family.points):
        print(f"prediction: {name} {number + 1} of {len(family.points)}", file=sys.stderr)
        output = place / f"{point.name}.json"
        if point.jobs > 1:
            found = run_jobs(point, folder, output)
            speed, method, doubts = found["speed"], "none needed", []
        else:
            found, drift = steady(point, family.base, base, folder, output)
            speed = found["steady"]["speed"]["value"]
            method = found["options"]["storage_method"]
            doubts = [check["name"] for check in found["checks"] if not check["ok"]]
            if abs(drift) > DRIFT:
                doubts.append(f"the machine prepared {drift:+.0%} against the base")
        alone = None
        if point.jobs == 1 and point.workers == family.base.workers and not point.form:
            alone = found["rates"]["P"]["value"] / base["rates"]["P"]["value"] - 1
        predicted = document["predictions"][point.name]
        if found["created"] < document["created"]:
            raise SystemExit(f"prediction: {output} is older than what predicts it; remove {place}")
        yield {
            "family": name,
            **asdict(point),
            "storage_method": method,
            "real": point.real and method == "blkio cgroup",
            "predicted": predicted["speed"]["value"],
            "shown": predicted["model"]["shown"],
            "bound_by": predicted["bound_by"],
            "predicted_at": document["created"],
            "run_at": found["created"],
            "measured": speed,
            "error": predicted["speed"]["value"] / speed - 1,
            "prep_alone": alone,  # of that run against the base's: the machine's doing
            "doubts": doubts,
        }


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Absolute errors: median, 95th percentile, worst; and share of real points."""
    errors = sorted(abs(row["error"]) for row in rows)
    return {
        "points": len(rows),
        "real": sum(row["real"] for row in rows),
        "median": statistics.median(errors),
        "95th percentile": errors[min(len(errors) - 1, round(0.95 * (len(errors) - 1)))],
        "worst": errors[-1],
    }


def by_bound(rows: list[dict[str, Any]]) -> list[str]:
    """The errors of what storage or the emulated accelerator binds, and of what the cores do."""
    paced = [
        row["bound_by"] == "fetch" or (row["bound_by"] == "gpu" and row["gpu"] > 0) for row in rows
    ]
    lines = []
    for wanted, what in ((True, "storage or the emulated accelerator"), (False, "the cores")):
        chosen = [row for row, is_paced in zip(rows, paced, strict=True) if is_paced == wanted]
        if chosen:
            found = summary(chosen)
            figures = ", ".join(f"{name} {found[name]:.1%}" for name in TARGETS)
            lines.append(f"- {found['points']:.0f} points are bound by {what}: {figures}")
    return lines


def apart(rows: list[dict[str, Any]]) -> float:
    """How much faster one run was than another of which nothing that matters differs: everything
    cached, and a storage that is not read. The machine alone makes as much of an error."""
    alike: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row["cached"] == 1.0 and row["jobs"] == 1:
            same = tuple(row[name] for name in ("family", "workers", "gpu", "model", "form"))
            alike.setdefault(same, []).append(row["measured"])
    return max((max(speeds) / min(speeds) - 1 for speeds in alike.values()), default=0.0)


def table(rows: list[dict[str, Any]], taken: dict[str, Any]) -> str:
    """The page of results."""
    found = summary(rows)
    lines = [
        f"# {QUESTION}",
        "",
        *(f"{name}: {told}." for name, told in taken["families"].items()),
        "",
        f"{found['points']:.0f} points, {found['real']:.0f} of them with a real model and storage "
        "held back by the kernel. Runs that differ in nothing but a storage they do not read "
        f"(everything cached) were up to {apart(rows):.1%} apart.",
        "",
        "| absolute error | target | reached | |",
        "|---|---|---|---|",
    ]
    for name, target in TARGETS.items():
        met = "met" if found[name] <= target else "**missed**"
        lines.append(f"| {name} | {target:.0%} | {found[name]:.1%} | {met} |")
    lines += ["", *by_bound(rows)]
    lines += [
        "",
        "Prep alone: the loader's own rate, from memory and with nobody training, in that run "
        "against the base's. No configuration here changes it, so it is the machine that differs.",
    ]
    heads = ["configuration", "predicted", "measured", "error", "bound by", "shown"]
    heads += ["prep alone", "doubts"]
    lines += ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        point = Point(**{key: row[key] for key in Point.__dataclass_fields__})
        cells = [
            point.name,
            f"{row['predicted']:.0f}",
            f"{row['measured']:.0f}",
            f"{row['error']:+.1%}",
            row["bound_by"],
            row["shown"],
            "–" if row.get("prep_alone") is None else f"{row['prep_alone']:+.0%}",
            "; ".join(row["doubts"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![predicted against measured](prediction.svg)", ""])


def plot(rows: list[dict[str, Any]]) -> str:
    """Predicted against measured speed as SVG: filled points are real, hollow ones emulated."""
    top = 1.05 * max(max(row["predicted"], row["measured"]) for row in rows)
    side, margin = 420, 50

    def place(value: float) -> float:
        return side * value / top

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side + 70} {side + 70}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{side + 70}" height="{side + 70}" fill="white"/>',
        f'<g transform="translate({margin},{side + 15}) scale(1,-1)">',
        f'<path d="M0 0H{side}M0 0V{side}" stroke="#444"/>',
        f'<path d="M0 0L{side} {side}" stroke="#999" stroke-dasharray="4"/>',
    ]
    for row in rows:
        fill = "#2563eb" if row["real"] else "none"
        drawn.append(
            f'<circle cx="{place(row["measured"]):.1f}" cy="{place(row["predicted"]):.1f}" r="4" '
            f'fill="{fill}" stroke="#2563eb"/>'
        )
    drawn += [
        "</g>",
        f'<text x="{margin + side / 2}" y="{side + 45}" text-anchor="middle">measured, samples/s '
        f"(0 to {top:.0f})</text>",
        f'<text transform="translate(30,{side / 2}) rotate(-90)" text-anchor="middle">predicted'
        "</text>",
        "</svg>",
    ]
    return "\n".join(drawn) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--photos", type=int, default=800)
    parser.add_argument("--only", choices=families(), action="append", help="a family")
    parser.add_argument("--list", action="store_true", help="name the points and end")
    parser.add_argument("--keep", type=Path, default=HERE.parent / "reports" / "prediction")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "prediction.json")
    options = parser.parse_args()
    chosen = {name: f for name, f in families().items() if name in (options.only or families())}
    if options.list:
        for name, family in chosen.items():
            print(*(f"{name} {point.name}" for point in family.points), sep="\n")
        return
    rows: list[dict[str, Any]] = []
    folder = options.keep / "pictures"
    if not folder.exists():  # the same files in every run, so that one can go on
        folder.mkdir(parents=True)
        source = pictures.folder("ImageNet-like")
        for number, path in enumerate(pictures.choose(source, options.photos, seed=0)):
            place = folder / f"class{number % 10}"
            place.mkdir(exist_ok=True)
            (place / f"{number:05}.jpg").write_bytes(path.read_bytes())
        os.sync()
    before = json.loads(options.output.read_text()) if options.output.exists() else {}
    taken: dict[str, Any] = {"question": QUESTION, "families": dict(before.get("families", {}))}
    rows += [row for row in before.get("rows", []) if row["family"] not in chosen]
    command = "`python benchmarks/prediction.py " + " ".join(sys.argv[1:]) + "`"
    for name, family in chosen.items():
        rows += measure(name, family, folder, options.keep)
        date = datetime.date.today().isoformat()
        taken["families"][name] = f"{date}, {machine.line(machine.describe())}, {command}"
    options.output.write_text(json.dumps(taken | {"summary": summary(rows), "rows": rows}))
    options.output.with_suffix(".md").write_text(table(rows, taken))
    options.output.with_suffix(".svg").write_text(plot(rows))
    print(table(rows, taken))


if __name__ == "__main__":
    main()
